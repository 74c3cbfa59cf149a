"""What decides what the figures of training mean, and which precisions are measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_process import SMALL

import r3d_fast.backend.paddle
from bench.reporting.figures import SYNTHETIC
from bench.reporting.results import load, save
from bench.reporting.tables import tables
from bench.reporting.train_tables import REFERENCE
from bench.training import trainers
from bench.training import training_throughput as training
from bench.training.training_throughput import TrainingSettings, configs_of
from r3d_fast.backend.precision import Precision


def test_the_commands_options_have_the_last_word_over_the_configs() -> None:
    assert {case: config.loader.batch_size for case, config in configs_of(TrainingSettings()).items()} == {
        ("fp32", "NCDHW"): 8
    }
    own = TrainingSettings(overrides=("loader.batch_size=5", "model.data_format=NDHWC", "augment.layout=NTHWC"))
    assert {case: config.loader.batch_size for case, config in configs_of(own).items()} == {("fp32", "NDHWC"): 5}
    told = replace(own, batch_size=7, layouts=("NCDHW",), precisions=("fp32", "bf16"))
    configs = configs_of(told)
    assert list(configs) == [("fp32", "NCDHW"), ("bf16", "NCDHW")]
    assert {(c.loader.batch_size, c.model.data_format, c.augment.layout) for c in configs.values()} == {
        (7, "NCDHW", "NCTHW")
    }
    gpu = configs_of(TrainingSettings(device="gpu"))
    assert {case: config.loader.batch_size for case, config in gpu.items()} == {
        ("fp32", k): 64 for k in ("NCDHW", "NDHWC")
    }


def test_precisions_that_a_gpu_has_not_are_left_out(
    small_videos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All but the GPU is real: its clips and steps are the CPU's."""
    make = training.make_loader

    def refuse(name: Any, device: str, level: str) -> Precision:
        if name == "bf16":
            raise r3d_fast.backend.paddle.EnvironmentProblem("no bf16 on this GPU")
        return Precision(name)

    monkeypatch.setattr(training, "require_gpu", lambda: None)
    monkeypatch.setattr(r3d_fast.backend.paddle, "choose_device", lambda wanted: wanted)
    monkeypatch.setattr(training, "choose_precision", refuse)
    monkeypatch.setattr(training, "make_loader", lambda *a, device, **options: make(*a, **options))
    monkeypatch.setattr(
        training,
        "TrainedModel",
        lambda config, classes, device, precision: trainers.TrainedModel(config, classes, "cpu", precision),
    )
    wait = trainers.wait_for
    monkeypatch.setattr(trainers, "wait_for", lambda clips: replace(wait(clips), gpu=True))
    settings = TrainingSettings(
        overrides=SMALL, data=small_videos, device="gpu", precisions=("bf16", "fp32"), layouts=("NCDHW",), batch_size=3,
        rounds=5, steps=1,
    )  # fmt: skip
    report = training.measure_training(settings, "bench")
    assert [run.precision for run in report.runs] == ["fp32"]
    assert report.extra == {"not measured": {"bf16": "no bf16 on this GPU"}}
    assert all(figures.gpu is not None for figures in report.runs[0].figures)
    save(report, tmp_path / "a.json")
    text = tables([load(tmp_path / "a.json")])
    assert REFERENCE in text
    assert "not measured, bf16: no bf16 on this GPU" in text
    with pytest.raises(r3d_fast.backend.paddle.EnvironmentProblem, match="no bf16"):
        training.measure_training(replace(settings, precisions=("bf16",)), "bench")


@pytest.mark.gpu
def test_a_gpu_trains_in_each_precision_that_it_has(paddle_gpu: str, small_videos: Path) -> None:
    settings = TrainingSettings(
        overrides=SMALL,
        data=small_videos,
        device="gpu",
        precisions=("fp32", "bf16", "fp16"),
        batch_size=3,
        rounds=5,
        steps=2,
    )
    report = training.measure_training(settings, "bench")
    left = report.extra.get("not measured", {})
    assert {run.precision for run in report.runs} | set(left) == {"fp32", "bf16", "fp16"}
    for run in report.runs:
        assert run[SYNTHETIC].loss[1] < run[SYNTHETIC].loss[0]
        assert all(figures.gpu is not None for figures in run.figures)

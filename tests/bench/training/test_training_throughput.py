"""What decides what the figures of training mean, and which precisions are measured."""

from __future__ import annotations

import json
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from bench_process import SMALL
from waiting import FakeClock

import r3d_fast.backend.paddle
from bench.gpu.decisions import feeding, precision
from bench.gpu.findings import Found
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING
from bench.reporting.results import ThroughputReport, load, save
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
    make, padded = training.make_loader, []

    def made(config: Any, classes: int, precision: Precision, *, padded_stem: bool) -> trainers.TrainedModel:
        padded.append(padded_stem)
        return trainers.TrainedModel(config, classes, "cpu", precision)

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
        lambda config, classes, device, precision, **options: made(config, classes, precision, **options),
    )
    wait = trainers.wait_for
    monkeypatch.setattr(trainers, "wait_for", lambda clips: replace(wait(clips), gpu=True))
    settings = TrainingSettings(
        overrides=SMALL, data=small_videos, device="gpu", precisions=("bf16", "fp32"), batch_size=3,
        layouts=("NCDHW", "NDHWC-padded"), rounds=5, steps=1,
    )  # fmt: skip
    report = training.measure_training(settings, "bench")
    assert [(run.precision, run.layout) for run in report.runs] == [("fp32", "NCDHW"), ("fp32", "NDHWC-padded")]
    assert padded == [False, True]
    assert report.extra == {"not measured": {"bf16": "no bf16 on this GPU"}}
    assert all(figures.gpu is not None for figures in report.runs[0].figures)
    save(report, tmp_path / "a.json")
    text = tables([load(tmp_path / "a.json")])
    assert REFERENCE in text
    assert "not measured, bf16: no bf16 on this GPU" in text
    with pytest.raises(r3d_fast.backend.paddle.EnvironmentProblem, match="no bf16"):
        training.measure_training(replace(settings, precisions=("bf16",)), "bench")


def test_another_config_trains_at_batch_64_on_a_gpu_unless_told_otherwise() -> None:
    demo = TrainingSettings(source="demo", device="gpu", layouts=("NDHWC",))
    assert [config.loader.batch_size for config in configs_of(demo).values()] == [64]
    told = replace(demo, overrides=("loader.batch_size=24",))
    assert [config.loader.batch_size for config in configs_of(told).values()] == [24]


def test_one_model_is_in_memory_at_a_time(small_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most: list[int] = []

    class Counted(trainers.TrainedModel):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(training, "TrainedModel", Counted)
    kept: list[ThroughputReport] = []
    settings = TrainingSettings(
        overrides=SMALL, data=small_videos, layouts=("NCDHW", "NDHWC"), batch_size=3, rounds=5, steps=1
    )
    report = training.measure_training(settings, "bench", keep=kept.append)
    assert most == [1, 1]
    # What ends it early leaves the rounds that were measured.
    assert [(len(part.runs), part.runs[-1].rounds) for part in kept] == [(k, n) for k in (1, 2) for n in range(1, 6)]
    assert kept[-1].runs[0] == report.runs[0]
    # What `bench gpu` makes of the file.
    found = Found({}, results={"train_fp32_NCDHW": json.loads(json.dumps(asdict(report)))})
    assert precision(found).choice == "fp32 NCDHW"
    assert feeding(found).startswith("fp32 NCDHW: training ")


def test_a_turn_on_a_gpu_lasts_two_seconds_and_one_on_a_cpu_two_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()

    class Synthetic:
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.learns = True

        def make(self, batches: int) -> int:
            self.losses += [1.0 / (len(self.losses) + 1)] * batches
            clock.pass_by(0.05 * batches)
            return batches

    monkeypatch.setattr(training, "perf_counter", clock)
    monkeypatch.setattr(training, "batches_lasting", lambda seconds, _: round(100 * seconds))
    for device, steps, loads in (("gpu", 40, 200), ("cpu", 2, 100)):
        paces = training._paces(Synthetic(), None, TrainingSettings(device=device))  # type: ignore[arg-type]
        assert paces[SYNTHETIC].batches == paces[TRAINING].batches == pytest.approx(steps, abs=1)
        assert paces[LOADER].batches == loads
        assert paces[TRAINING].warm == 1  # a batch takes 0.01 s, a step 0.05
    assert TrainingSettings(device="gpu").turn == {"seconds_a_turn": 2.0}
    assert TrainingSettings(device="gpu", steps=3).turn == {"steps_a_turn": 3}


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

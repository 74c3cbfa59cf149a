"""`bench train throughput`, whole, with a small model, and the parts that decide what its figures mean."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_process import bench
from clips import write_classes
from reports import MACHINE

import r3d_fast.backend.paddle
from bench.reporting.chart import draw
from bench.reporting.comparison import compare
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING, Figures, MeasuredRun
from bench.reporting.results import TRAIN_KIND, ThroughputReport, load, load_any, save
from bench.reporting.tables import tables
from bench.reporting.train_tables import REFERENCE
from bench.training import trainers
from bench.training import training_throughput as training
from bench.training.training_throughput import TrainingSettings, configs_of
from pipelines.errors import UsageError
from pipelines.loader import Batch
from r3d_fast.backend.precision import Precision
from r3d_fast.errors import DivergedError

SMALL = ("model.name=r3d10", "model.width=4", "augment.size_px=32", "clip.num_frames=4", "loader.workers=1")
FEW = ("--rounds", "5", "--steps", "1", "--batch-size", "3")


def small(*more: str) -> list[str]:
    return [part for value in (*SMALL, *more) for part in ("-o", value)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("train") / "videos", 8, classes="abc")


@pytest.fixture(scope="module")
def measured(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("measured")
    done = bench("train", "throughput", "--data", videos, *small(), *FEW, "--layout", "NCDHW,NDHWC",
                 "--json", folder / "a.json", "--plot", folder / "a.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, folder


def test_training_stands_beside_its_two_ceilings(measured: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = measured
    report = load(folder / "a.json")
    assert report.kind == TRAIN_KIND
    assert [(run.precision, run.layout, run.rounds, run.workers) for run in report.runs] == [
        ("fp32", "NCDHW", 5, 1),
        ("fp32", "NDHWC", 5, 1),
    ]
    for run in report.runs:
        assert run.names == [SYNTHETIC, LOADER, TRAINING]
        assert len(run[TRAINING].waited) == len(run[TRAINING].step_ms) == len(run[SYNTHETIC].step_ms) == 5
        for speed, waited, step in zip(
            run[TRAINING].clips_per_second, run[TRAINING].waited, run[TRAINING].step_ms, strict=True
        ):
            # Waits and steps are all that a turn is made of.
            assert waited + step * speed / 3000 == pytest.approx(1, abs=0.05)
        assert run[SYNTHETIC].loss[1] < run[SYNTHETIC].loss[0]  # one batch is learnt
        assert all(math.isfinite(loss) for loss in run[TRAINING].loss)
        assert min(run[TRAINING].cpu_seconds_per_clip) >= 0
        assert run[SYNTHETIC].bytes_per_clip is None
        assert run[LOADER].bytes_per_clip
        assert re.search(
            rf"^{run.title}, 5 rounds: training gives \d+ % \(.*\) of its lower ceiling", done.stdout, re.M
        )
    assert report.settings.items() >= {
        "model": "r3d10", "width": 4, "batch_size": 3, "num_frames": 4, "size_px": 32, "videos": 8,
    }.items()  # fmt: skip
    assert "round 5 of 5" in done.stderr
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "a.json").read_text()
    assert str(folder) not in text
    assert "/" not in report.command


def test_the_other_commands_take_its_results(measured: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = measured
    done = bench("compare", folder / "a.json", folder / "a.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no difference") == 6
    assert "segments, fp32, NDHWC, 1 worker: training" in done.stdout
    run = load(folder / "a.json").runs[0]
    for brief in ((), ("--brief",)):
        done = bench("report", folder, *brief)
        assert done.returncode == 0, done.stderr
        assert f"| fp32 | NCDHW | {run[TRAINING].median:.0f}" in done.stdout or run[TRAINING].median < 99.95
        assert ("CPU ms a clip" in done.stdout) == (not brief)
        assert "V100" not in done.stdout


# Figures by hand.


def made(
    training: tuple[float, ...] = (50.0, 20.0, 45.0, 48.0, 49.0), device: str = "cpu", **changes: Any
) -> ThroughputReport:
    run = MeasuredRun(
        "segments",
        2,
        (
            Figures(SYNTHETIC, (60.0, 25.0, 60.0, 60.0, 60.0), 16, step_ms=(130.0,) * 5, loss=(4.6, 0.1)),
            Figures(LOADER, (200.0, 90.0, 50.0, 200.0, 200.0), 16),
            Figures(TRAINING, training, 16, waited=(0.1, 0.0, 0.5, 0.2, 0.3), step_ms=(140.0,) * 5, loss=(4.6, 4.1)),
        ),
        "bf16",
        "NDHWC",
    )
    settings = {"batch_size": 8, "device": device, "model": "r3d10", "width": 8, "num_frames": 16, "size_px": 112}
    return ThroughputReport(
        1, TRAIN_KIND, "bench train throughput", "abc1234", MACHINE, settings, (replace(run, **changes),)
    )


def test_training_is_set_against_the_ceiling_that_was_lower_in_the_same_round() -> None:
    run = made().runs[0]
    # 50/60, 20/25, 45/50 (the loader's was lower there), 48/60, 49/60.
    assert run.of_ceiling() == pytest.approx((49 / 60, 0.8, 0.9))
    assert (run.title, run.base) == ("segments, bf16, NDHWC", TRAINING)


def test_tables_and_the_foreign_figure_only_beside_a_gpu() -> None:
    text = tables([made(device="gpu")])
    rates = "48.0 (20.0 to 50.0) | 60.0 (25.0 to 60.0) | 200 (50.0 to 200)"
    row = f"| bf16 | NDHWC | {rates} | 82 % (80 to 90) | 20 % (0 to 50) |"
    assert row in text
    assert row in tables([made()], brief=True)
    assert "| bf16 | NDHWC | 140 | 130 | - | - | - | - | 4.60 to 0.10 | 4.60 to 4.10 |" in text
    assert "; r3d10 of width 8, clips of 16x112x112; batch 8; 5 rounds; " in text
    assert REFERENCE.startswith("Somebody else's figure, not measured here: ")
    assert all(number in REFERENCE for number in ("65 clips/s", "156 clips/s", "V100"))
    for brief in (False, True):
        assert tables([made(device="gpu")], brief=brief).count(REFERENCE) == 1
        assert "V100" not in tables([made()], brief=brief)


def test_results_come_back_and_are_compared(tmp_path: Path) -> None:
    save(made(), tmp_path / "a.json")
    assert load(tmp_path / "a.json") == load_any(tmp_path / "a.json") == made()
    faster = compare(made((20.0, 21.0, 22.0, 23.0, 24.0)), made((50.0, 51.0, 52.0, 53.0, 54.0)))[2]
    assert (faster.run, faster.name, faster.verdict) == ("segments, bf16, NDHWC", TRAINING, "faster")
    plain = [replace(run, precision=None, layout=None) for run in made().runs]
    other = ThroughputReport(1, "loader throughput", "", "", MACHINE, {}, tuple(plain))
    with pytest.raises(UsageError, match="results of 'train throughput' and of 'loader throughput'"):
        compare(made(), other)
    draw(made(), tmp_path / "a.svg")
    assert "Clips per second in training" in (tmp_path / "a.svg").read_text() or (tmp_path / "a.svg").stat().st_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": None}, "no precision or layout"),
        ({"layout": ""}, "no precision or layout"),
        ({"figures": made().runs[0].figures[:2]}, "expected ['synthetic', 'loader', 'training']"),
        (
            {"figures": (*made().runs[0].figures[:2], replace(made().runs[0][TRAINING], waited=()))},
            "training: no waited",
        ),
        ({"figures": (replace(made().runs[0][SYNTHETIC], step_ms=()), *made().runs[0].figures[1:])}, "no step_ms"),
    ],
)
def test_runs_that_lack_what_training_has_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        made(**changes)
    values = json.loads(json.dumps(asdict(made())))
    values["runs"][0] |= json.loads(json.dumps({key: _plain(value) for key, value in changes.items()}))
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="damaged results: "):
        load(tmp_path / "a.json")


def _plain(value: Any) -> Any:
    return [asdict(figures) for figures in value] if isinstance(value, tuple) else value


def test_figures_of_training_that_cannot_be_are_refused() -> None:
    good = made().runs[0][TRAINING]
    for change in ({"waited": (0.1,)}, {"waited": (1.1,) * 5}, {"waited": (math.nan,) * 5}, {"step_ms": (0.0,) * 5},
                   {"step_ms": (1.0,)}, {"loss": (math.nan, 1.0)}):  # fmt: skip
        with pytest.raises(UsageError):
            replace(good, **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a precision or layout in 'loader throughput'"):
        replace(made(), kind="loader throughput")


# What is measured.


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


class Clock:
    """Time that only the things that are measured let pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> None:
        self.now += seconds


def batch() -> Batch:
    clips = np.zeros((3, 3, 4, 32, 32), np.float32)
    return Batch(clips, np.zeros(3, np.int64), np.zeros(3, np.int64), np.ones(3, bool), 0, 3, ())


def test_waits_for_data_and_steps_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(trainers, "perf_counter", clock)

    class Loader:
        statistics = SimpleNamespace(bytes_read=77)

        def __iter__(self) -> Iterator[Batch]:
            for _ in range(2):
                clock.takes(3.0)
                yield batch()

    class Model:
        def feeding(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Batch]]:
            for fed in batches:
                clock.takes(0.5)
                yield fed, fed

        def step(self, _: Batch) -> SimpleNamespace:
            clock.takes(1.0)
            return SimpleNamespace(loss=1.0)

    contender = trainers.TrainingContender(Model(), Loader())  # type: ignore[arg-type]
    assert contender.make(5) == 15  # over the end of two epochs
    assert contender.costs() == {"waited_seconds": 17.5, "step_seconds": 5.0, "steps": 5, "bytes_read": 77}
    alone = trainers.SyntheticContender(Model(), batch())  # type: ignore[arg-type]
    assert alone.make(4) == 12
    assert alone.costs() == {"step_seconds": 4.0, "steps": 4}  # fed once, before


def test_batches_and_losses_are_checked_first() -> None:
    (config,) = configs_of(TrainingSettings(overrides=SMALL, batch_size=3)).values()
    trainers.check_batch(batch(), config, "cpu", "float32")
    other = config.model_copy(update={"augment": config.augment.model_copy(update={"layout": "NTHWC"})})
    wrongs = [
        (batch(), config, "gpu", "float32"),
        (batch(), config, "cpu", "float16"),
        (batch(), other, "cpu", "float32"),
        (replace(batch(), labels=np.zeros(2, np.int64)), config, "cpu", "float32"),
        (replace(batch(), is_real=np.zeros(3, bool)), config, "cpu", "float32"),
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(UsageError, match="the loader gives"):
            trainers.check_batch(*wrong)
    synthetic = trainers.SyntheticContender(SimpleNamespace(feeding=lambda batches: ((b, b) for b in batches)), batch())  # type: ignore[arg-type]
    for losses, message in (
        ([2.0, math.nan, 1.0], "the loss of step 2 of 3 is no number"),
        ([2.0, 2.5, 2.0], "the loss of one batch, 2 at first, did not fall in 3 steps"),
    ):
        synthetic.losses = losses
        with pytest.raises(DivergedError, match=message):
            trainers.check_losses(synthetic)
    synthetic.losses = [2.0, 2.5, 1.9]
    trainers.check_losses(synthetic)


def test_precisions_that_a_gpu_has_not_are_left_out(
    videos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
        overrides=SMALL, data=videos, device="gpu", precisions=("bf16", "fp32"), layouts=("NCDHW",), batch_size=3,
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


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "bf16"], 4, "bench: train.precision bf16: "),
        (["--precision", "fp8"], 2, "--precision fp8: expected one or more of fp32, bf16, fp16, each once"),
        (["--precision", "fp32,fp32"], 2, "--precision fp32,fp32: expected one or more of"),
        (["--layout", "NCHW"], 2, "--layout NCHW: expected one or more of NCDHW, NDHWC, each once"),
        (["-c", "ucf101_r3d81"], 2, "ucf101_r3d81"),
        (["-o", "model.widht=8"], 2, "did you mean width?"),
        (["--data", "missing"], 3, "missing: no such folder"),
        (["--json", "no/a.json"], 2, "no/a.json: can't be written: there is no folder no; make it first"),
        (["--plot", "a.gif"], 2, "a.gif: expected a name that ends in .png or .svg"),
        (["--rounds", "4"], 2, "4 is not in the range x>=5"),
        (["--batch-size", "99", "--data", "VIDEOS"], 2, "loader.batch_size 99 is more than the 8 clips"),
        (["-o", "optimizer.lr=1e30", "--data", "VIDEOS"], 6, "lower the rate with -o optimizer.lr"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_the_right_code(
    arguments: list[str], code: int, message: str, videos: Path, tmp_path: Path
) -> None:
    arguments = [str(videos) if word == "VIDEOS" else word for word in arguments]
    done = bench("train", "throughput", *small(), *FEW, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
def test_a_gpu_trains_in_each_precision_that_it_has(paddle_gpu: str, videos: Path) -> None:
    settings = TrainingSettings(
        overrides=SMALL, data=videos, device="gpu", precisions=("fp32", "bf16", "fp16"), batch_size=3, rounds=5, steps=2
    )
    report = training.measure_training(settings, "bench")
    left = report.extra.get("not measured", {})
    assert {run.precision for run in report.runs} | set(left) == {"fp32", "bf16", "fp16"}
    for run in report.runs:
        assert run[SYNTHETIC].loss[1] < run[SYNTHETIC].loss[0]
        assert all(figures.gpu is not None for figures in run.figures)

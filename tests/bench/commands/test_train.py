"""`bench train throughput`, whole, with a small model."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import pytest
from bench_process import bench, small

from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING
from bench.reporting.results import TRAIN_KIND, load

FEW = ("--rounds", "5", "--steps", "1", "--batch-size", "3")


@pytest.fixture(scope="module")
def measured(
    small_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("measured")
    done = bench("train", "throughput", "--data", small_videos, *small(), *FEW, "--layout", "NCDHW,NDHWC",
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


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "bf16"], 4, "bench: train.precision bf16: "),
        (["--precision", "fp8"], 2, "--precision fp8: expected one or more of fp32, bf16, fp16, each once"),
        (["--precision", "fp32,fp32"], 2, "--precision fp32,fp32: expected one or more of"),
        (["--layout", "NCHW"], 2, "--layout NCHW: expected one or more of NCDHW, NDHWC, NDHWC-padded, each once"),
        (["--layout", "NDHWC-padded"], 2, "--layout NDHWC-padded: a stem is padded on a GPU alone; add --device gpu"),
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
    arguments: list[str], code: int, message: str, small_videos: Path, tmp_path: Path
) -> None:
    arguments = [str(small_videos) if word == "VIDEOS" else word for word in arguments]
    done = bench("train", "throughput", *small(), *FEW, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr

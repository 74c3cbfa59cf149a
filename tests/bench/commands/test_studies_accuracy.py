"""`bench studies accuracy` as a user runs it, on a data set and a network that train in seconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
from bench_process import REPO, bench

from pipelines.index.video_index import VideoIndex

QUICK = [
    part
    for value in (
        "model.name=r3d10", "model.width=4", "clip.num_frames=4", "augment.size_px=16", "loader.batch_size=6",
        "loader.workers=1", "train.epochs=2", "schedule.milestones_epochs=[1]", "train.log_to=[]",
    )
    for part in ("-o", value)
]  # fmt: skip


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return tiny.make_tiny(tmp_path_factory.mktemp("motions"))


def study(*arguments: object, cwd: Path) -> tuple[str, dict[str, Any]]:
    """(stdout, JSON) of a study that ends well."""
    done = bench("studies", "accuracy", *QUICK, *arguments, "--json", cwd / "a.json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((cwd / "a.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_figures_are_those_of_the_run_folders_and_seeds_differ(motions: VideoIndex, tmp_path: Path) -> None:
    text, values = study(
        "--data", motions.path, "--vary", "optimizer.lr=0.001,0.1", "--seeds", 2, "--runs", tmp_path / "runs",
        "--plot", tmp_path / "curves.png", cwd=tmp_path,
    )  # fmt: skip
    assert list(values["contenders"]) == ["optimizer.lr=0.001", "optimizer.lr=0.1"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        f"optimizer.lr={value}-seed{seed}" for value in ("0.001", "0.1") for seed in (0, 1)
    ]
    for name, contender in values["contenders"].items():
        for seed, curve in contender["curves"].items():
            run = tmp_path / "runs" / f"{name}-seed{seed}"
            evaluated = runs.records(run, "eval")
            assert [(p["test loss"], p["top1"]) for p in curve] == [(r["loss"], r["top1"]) for r in evaluated]
            steps = [record["loss"] for record in runs.records(run, "train")]
            assert curve[1]["train loss"] == pytest.approx(statistics.fmean(steps[len(steps) // 2 :]))
            written = (run / "config.yaml").read_text(encoding="utf-8")
            assert written.count(f"seed: {seed}") == 2
        ends = [curve[-1]["test loss"] for curve in contender["curves"].values()]
        assert ends[0] != ends[1]
        assert contender["last"]["test loss"]["mean"] == pytest.approx(statistics.fmean(ends))
        assert (contender["last"]["test loss"]["low"], contender["last"]["test loss"]["high"]) == (
            min(ends), max(ends),
        )  # fmt: skip
    # The variants begin with the same weights and the same clips: they differ only after the first step.
    first = [runs.records(tmp_path / "runs" / f"optimizer.lr={v}-seed0", "train")[0]["loss"] for v in ("0.001", "0.1")]
    assert first[0] == first[1]
    assert "| optimizer.lr=0.1 | " in text
    assert "With 2 seeds chance alone does that in 33 of 100 comparisons." in text
    assert "- test loss, optimizer.lr=0.1 beside optimizer.lr=0.001: **" in text
    assert (values["data"], values["videos"], values["classes"]) == ("data.r3dindex", {"train": 24, "test": 16}, 8)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    # Started again, it goes on from the folders: nothing is trained twice.
    _, same = study(
        "--data", motions.path, "--vary", "optimizer.lr=0.001,0.1", "--seeds", 2, "--runs", tmp_path / "runs",
        cwd=tmp_path,
    )  # fmt: skip
    assert same["contenders"] == values["contenders"]


@pytest.mark.skipif(find_spec("torch") is None, reason="without PyTorch")
def test_pytorch_is_given_the_same_and_stands_beside(motions: VideoIndex, tmp_path: Path) -> None:
    text, values = study("--data", motions.path, "--torch", "--seeds", 1, cwd=tmp_path)
    names = ["r3d-fast", "PyTorch", "PyTorch, Paddle's variances"]
    assert list(values["contenders"]) == names
    same = values["the same in PyTorch"]
    assert same["batches equal"] == 2 * (24 // 6)
    assert same["first loss, largest difference as a share"] < 1e-5
    curves = [values["contenders"][name]["curves"]["0"] for name in names]
    assert [[point["step"] for point in curve] for curve in curves] == [[4, 8]] * 3
    assert curves[0][0]["train loss"] == pytest.approx(curves[1][0]["train loss"], rel=0.05)
    assert [point["train loss"] for point in curves[1]] == [point["train loss"] for point in curves[2]]
    assert curves[1][1]["test loss"] != curves[2][1]["test loss"]
    assert "8 batches with equal SHA-256" in text
    assert "One seed tells nothing apart: take more." in text


@pytest.mark.slow
def test_equal_time_ends_runs_by_the_clock_and_evaluates_them_alike(motions: VideoIndex, tmp_path: Path) -> None:
    _, values = study(
        "--data", motions.path, "--vary", "loader.repeats=1,2", "--seeds", 1, "--minutes", 0.05,
        "-o", "train.epochs=1000000", "-o", "schedule.kind=constant", "-o", "schedule.milestones_epochs=[]",
        cwd=tmp_path,
    )  # fmt: skip
    assert (values["minutes"], values["settings"]["schedule"]["kind"]) == (0.05, "constant")
    for contender in values["contenders"].values():
        steps = [point["step"] for point in contender["curves"]["0"]]
        # 24 videos are 4 steps; with two clips of each 8: evaluated every 8, and when the time is up.
        assert len(steps) > 1
        assert all(step % 8 == 0 for step in steps[:-1])
        assert contender["curves"]["0"][-1]["seconds"] < 0.05 * 60 + 2


@pytest.mark.slow
def test_a_killed_study_leaves_no_training_behind(motions: VideoIndex, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "bench.cli", "studies", "accuracy", *QUICK, "-o", "train.epochs=100000", "--data",
        motions.path, "--seeds", "1", "--runs", tmp_path / "runs",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    run = tmp_path / "runs" / "seed0"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        runs.wait_for_step(run, 2, child)
        child.kill()
        child.communicate(timeout=120)  # stderr is open for as long as the training goes on
    assert runs.last_checkpoint(run).state["step"] == len(runs.records(run, "train"))


def test_it_makes_its_own_data(tmp_path: Path) -> None:
    _, values = study("--seeds", 1, "-o", "train.epochs=1", cwd=tmp_path)
    assert (values["data"], values["videos"]) == ("the demo's motions", {"train": 128, "test": 64})
    assert values["settings"]["augment"]["mirror"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--vary", "loader.repeats"], 2, "--vary loader.repeats: expected SECTION.KEY=V1,V2 with two or more values"),
        (["--vary", "loader.repeats=1"], 2, "--vary loader.repeats=1: expected SECTION.KEY=V1,V2 with two or more"),
        (["--vary", "loader.repeats=1,1"], 2, "--vary loader.repeats=1,1: expected SECTION.KEY=V1,V2 with two or more"),
        (["--vary", "loader.repeat=1,2"], 2, "-o loader.repeat=1: unknown key; did you mean repeats?"),
        (["--vary", "loader.repeats=1,x"], 2, "-o loader.repeats=x: expected "),
        (["--vary", "train.seed=1,2"], 2, "--vary train.seed=1,2: train.seed is the same for all"),
        (["--data", "nowhere"], 3, "nowhere: no such file or folder; expected an index or a folder of videos"),
        (["--seeds", "0"], 2, "Invalid value for '--seeds': 0 is not in the range x>=1"),
        (["--minutes", "0"], 2, "Invalid value for '--minutes': 0.0 is not in the range x>0"),
        (["-c", "dema"], 2, "a shipped config: did you mean demo?"),
        (["--plot", "a.pdf"], 2, "a.pdf: expected a name that ends in .png or .svg"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_the_right_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = bench("studies", "accuracy", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("bench: ")]
    assert len(said) == 1, done.stderr
    assert message in said[0]
    assert list(tmp_path.iterdir()) == []


def test_without_pytorch_it_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from bench.cli import main; main()"
    command = [sys.executable, "-c", code, "studies", "accuracy", "--torch"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "bench: --torch needs PyTorch: pip install 'r3d-fast[torch]'\n"


@pytest.mark.skipif(find_spec("torch") is None, reason="without PyTorch")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.ema_decay=0.9", "train.ema_decay 0.9: not done with --torch; expected None"),
        ("model.dropout=0.5", "model.dropout 0.5: not done with --torch; expected 0.0"),
        ("optimizer.name=adamw", "optimizer.name adamw: not done with --torch; expected momentum"),
        ("train.precision=bf16", "--torch compares in fp32 on the CPU"),
    ],
)
def test_what_pytorch_does_not_do_is_refused_before_anything_is_trained(
    override: str, message: str, tmp_path: Path
) -> None:
    done = bench("studies", "accuracy", "--torch", "-o", override, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"bench: {message}")
    assert list(tmp_path.iterdir()) == []

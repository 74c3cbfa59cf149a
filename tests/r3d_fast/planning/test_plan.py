"""The plan of a run: what it says of the videos, the batches, the memory and the time, on few and narrow lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from clips import write_stamped_video

from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import load_config
from r3d_fast.metrics import ClassificationMetrics, class_figures
from r3d_fast.planning.batch_choice import ChosenBatches
from r3d_fast.planning.plan import Plan, Videos, Work, plan_of
from r3d_fast.planning.trial import Line, Measured

WORK = Work(epochs=25, steps=30, done=0, eval_batches=5, evaluations=25, batch=8, eval_batch=8)
MEASURED = Measured(
    train_bytes=Line(1e9, 0.25 * 2**30), eval_bytes=Line(1e9, 0), address_bytes=Line(0, 0),
    step_seconds=Line(0.0, 0.25), eval_seconds=Line(1.0, 0.125), seconds=4.0,
)  # fmt: skip


def a_plan(index: VideoIndex, *more: str, work: Work = WORK, measured: Measured | None = MEASURED) -> Plan:
    config = load_config("folder_r3d18", [f"data.root={index.root}", *more])
    need = None if measured is None else int(2.9 * 2**30)
    chosen = ChosenBatches(config, measured, 16 * 2**30, "free RAM", "auto: the most that help", need)
    words = {"device": "CPU, 2 threads, fp32", "run": "runs/my videos"}
    return plan_of(config, chosen, index, work, parameters=33_170_000, **words)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Six training videos of wave, two of jump; in the test split three of wave and one of jump."""
    root = tmp_path_factory.mktemp("uneven") / "videos"
    for split, counts in (("train", {"jump": 2, "wave": 6}), ("test", {"jump": 1, "wave": 3})):
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                write_stamped_video(root / split / name / f"{split}{number}.avi", num_frames=4)
    return VideoIndex.build(root, workers=0)


def test_uneven_classes_are_told_with_what_the_largest_alone_would_give(uneven: VideoIndex) -> None:
    videos = Videos.of(uneven, "train", "test")
    assert videos == Videos(8, 4, 2, ("wave", 6), ("jump", 2), ("wave", 0.75))
    text = str(a_plan(uneven))
    assert "data     8 videos to train on, 4 to evaluate on, 2 classes" in text
    assert "2 (jump) to 6 (wave) of a class; always saying wave is right in 75.0 %" in text


def test_what_one_class_alone_would_give_is_that_of_the_evaluated_videos_as_in_a_report(tmp_path: Path) -> None:
    for split, counts in (("train", {"jump": 3, "wave": 1}), ("test", {"jump": 1, "wave": 2})):
        for name, count in counts.items():
            (tmp_path / "videos" / split / name).mkdir(parents=True)
            for number in range(count):
                write_stamped_video(tmp_path / "videos" / split / name / f"{split}{number}.avi", num_frames=4)
    index = VideoIndex.build(tmp_path / "videos", workers=0)
    assert "1 (wave) to 3 (jump) of a class; always saying wave is right in 66.7 %" in str(a_plan(index))
    metrics, labels = ClassificationMetrics(2), index.columns("test").label
    metrics.update(np.zeros((3, 2), np.float32), labels, np.ones(3, bool))
    assert class_figures(metrics.result()).majority == Videos.of(index, "train", "test").majority[1]


def test_a_plan_is_at_most_fifteen_narrow_lines(index: VideoIndex) -> None:
    lines = str(a_plan(index, "train.accumulate=2", "init.weights=r3d18-kinetics400")).splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 80, lines
    assert "         3 to train on of each class" in lines


def test_memory_and_time_follow_from_the_trial(index: VideoIndex) -> None:
    plan = a_plan(index)
    assert plan.step_seconds == 2.0
    assert plan.epoch_seconds == 60.0
    assert plan.eval_seconds == 5 * 2.0
    assert plan.seconds == 25 * (60.0 + 10.0)
    text = str(plan)
    assert "memory   about 2.9 GiB of 16.0 GiB (free RAM)" in text
    assert "time     about 1:00 an epoch and 0:10 for an evaluation, 29:10 in all" in text
    assert "batch: auto: the most that help" in text
    half = a_plan(index, work=replace(WORK, done=375, evaluations=13))
    assert half.seconds == 375 * 2.0 + 13 * 10.0
    assert "25 epochs of 30 steps: 750, 375 of them done" in str(half)
    assert str(half).count(" left") == 1


def test_without_a_trial_nothing_is_claimed(index: VideoIndex) -> None:
    text = str(a_plan(index, measured=None))
    assert "\nmemory   not measured; 16.0 GiB are free (free RAM)\n" in text
    assert "\ntime     not known before the first steps\n" in text


def test_one_of_anything_is_no_plural(index: VideoIndex) -> None:
    plan = a_plan(index, work=replace(WORK, epochs=1, steps=1))
    text = str(replace(plan, videos=replace(plan.videos, train=1, classes=1)))
    assert "steps    1 epoch of 1 step: 1" in text
    assert "data     1 video to train on, 16 to evaluate on, 1 class\n" in text


def test_the_learning_rate_is_that_of_the_batch(index: VideoIndex) -> None:
    scaled = str(a_plan(index, "optimizer.lr=0.01", "optimizer.lr_for_batch=64"))
    assert "learning rate: 0.00125 (optimizer.lr 0.01 x 8/64, by lr_for_batch)\n" in scaled
    assert "learning rate: 0.01\n" in str(a_plan(index, "optimizer.lr=0.01", "optimizer.lr_for_batch=8"))
    assert a_plan(index, "optimizer.lr=0.01", "optimizer.lr_for_batch=64").rate == 0.00125
    more = ("optimizer.lr=0.01", "optimizer.lr_for_batch=64", "train.accumulate=2")
    assert a_plan(index, *more).rate == 0.0025
    assert a_plan(index, "optimizer.lr=0.01", "optimizer.lr_for_batch=null").rate == 0.01


def test_the_command_that_goes_on_can_be_copied(index: VideoIndex) -> None:
    assert str(a_plan(index)).splitlines()[-1] == "stop     Ctrl-C; go on: r3d-fast train --resume 'runs/my videos'"


def test_a_run_keeps_its_plan(index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.trained(tmp_path / "run", index, "train.epochs=2")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["work"] == {
        "epochs": 2, "steps": 4, "done": 0, "eval_batches": 3, "evaluations": 2, "batch": 6, "eval_batch": 6,
    }  # fmt: skip
    assert plan["videos"]["train"] == 24
    err = capsys.readouterr().err
    assert "data     24 videos to train on, 16 to evaluate on, 8 classes" in err
    assert f"stop     Ctrl-C; go on: r3d-fast train --resume {tmp_path / 'run'}" in err

"""Training under fire: it is killed (-9) at random and goes on; in the end it is the run that nobody disturbed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

import runs

from pipelines.index.video_index import VideoIndex
from soak.usage import Usage

STEPS_AN_EVALUATION = 100
_STEPS_AN_EPOCH = 4  # of the tiny data set
_NOTES = 50


@dataclass(frozen=True)
class TrainingSoak:
    """What became of it: steps, kills, "" or in words how the two runs differ, seconds, `usage` of the calm one."""

    steps: int
    kills: int
    difference: str
    seconds: float
    usage: Usage


def soak_training(
    index: VideoIndex, folder: Path, steps: int, *, seed: int, every: int, say: Callable[[str], None] = print
) -> TrainingSoak:
    """Train `steps` steps twice in `folder`: in one go, and killed about once in `every` steps, each time resumed."""
    begin, draw, usage = perf_counter(), Random(seed), Usage()
    options = (
        f"train.epochs={-(-steps // _STEPS_AN_EPOCH)}",
        f"train.eval_every_epochs={STEPS_AN_EVALUATION // _STEPS_AN_EPOCH}", "train.checkpoint_every_steps=10",
    )  # fmt: skip
    calm, hit = folder / "calm", folder / "hit"
    child = runs.start(index, calm, *options, resume=False)
    for mark in range(0, steps, max(1, steps // _NOTES)):
        runs.wait_for_step(calm, mark, child)
        usage.note(mark, [child.pid])
    _end(child)
    kills, done = 0, 0
    while True:
        child = runs.start(index, hit, *options)
        until = done + 1 + int(draw.expovariate(1 / every))
        runs.wait_for_step(hit, min(until, steps), child)
        if until >= steps or child.poll() is not None:
            _end(child)
            break
        child.kill()
        child.communicate()
        kills += 1
        done = len(runs.records(hit, "train"))
        say(f"{done} of {steps} steps, {kills} kills")
    difference = ""
    try:
        runs.assert_same(hit, calm)
    except AssertionError as error:
        difference = str(error)
    return TrainingSoak(steps, kills, difference, perf_counter() - begin, usage)


def _end(child: subprocess.Popen[str]) -> None:
    _, told = child.communicate()
    if child.returncode:
        raise AssertionError(f"training ended with {child.returncode}: {told}")

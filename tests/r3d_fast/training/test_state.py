"""What is due after a step, and what an evaluation changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from r3d_fast.config.sections import ScheduleSpec, TrainSpec
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.metrics import ClassificationMetrics, Result, VideoScores
from r3d_fast.ranks.group import News
from r3d_fast.training.state import Due, RunClock, RunState, due_after
from r3d_fast.weights.checkpoint import Checkpoint

QUIET = News((), stop=False, save=False, seconds=0.0)


@pytest.mark.parametrize(
    ("state", "news", "spec", "due"),
    [
        ({"step": 4}, {}, {}, Due(save=False, stop=False, end=False)),
        ({"step": 4}, {}, {"checkpoint_every_steps": 4}, Due(save=True, stop=False, end=False)),
        ({"step": 5}, {}, {"checkpoint_every_steps": 4}, Due(save=False, stop=False, end=False)),
        ({"step": 4}, {"save": True}, {}, Due(save=True, stop=False, end=False)),
        ({"step": 4}, {"stop": True}, {}, Due(save=True, stop=True, end=False)),
        ({"step": 4, "seconds": 61.0}, {}, {"max_minutes": 1.0}, Due(save=False, stop=False, end=True)),
        ({"step": 4, "evals_since_best": 2}, {}, {"early_stop_evals": 2}, Due(save=False, stop=False, end=True)),
    ],
)
def test_what_is_due_after_a_step(state: Any, news: Any, spec: Any, due: Due) -> None:
    assert due_after(RunState(**state), News(**{**vars(QUIET), **news}), TrainSpec(**spec)) == due


def result(*logits: float) -> Result:
    """The figures of a sample for each of `logits`, of label 0, with that logit for class 0 and 0 for class 1."""
    metrics = ClassificationMetrics(2)
    count = len(logits)
    metrics.update(np.array([[logit, 0.0] for logit in logits]), np.zeros(count, int), np.ones(count, bool))
    return metrics.result()


@pytest.mark.parametrize(
    ("watch", "falls"), [("loss", [0, 0, 1]), ("clip_loss", [0, 1, 1]), ("top1", [0, 1, 2])]
)  # fmt: skip
def test_a_plateau_watches_the_figure_that_it_is_told_to(watch: Any, falls: list[int]) -> None:
    """The loss of videos falls and rises, that of clips rises and falls, top1 stays."""
    state, schedule = RunState(), ScheduleSpec(kind="plateau", watch=watch, patience_evals=0)
    for of_clips, of_videos, expected in zip(((1.0, 2.0), (0.5, 2.0), (3.0, 3.0)), (1.0, 2.0, 0.5), falls, strict=True):
        figures: Any = {"clip": result(*of_clips), "video": result(of_videos)}
        evaluation = Evaluation(**figures, scores=VideoScores(2), bad=(), source=None)  # type: ignore[arg-type]
        state.note(evaluation, schedule, whole_epoch=True)
        assert state.falls == expected


def noted(state: RunState, *figures: tuple[float, float]) -> list[bool]:
    """Whether each evaluation, given as (top1, loss), is the best so far."""
    best = []
    for number, (top1, loss) in enumerate(figures, state.step + 1):
        of_videos: Any = {**result(1.0), "top1": top1, "loss": loss}
        state.step = number
        evaluation = Evaluation(clip=of_videos, video=of_videos, scores=VideoScores(2), bad=(), source=None)  # type: ignore[arg-type]
        best.append(state.note(evaluation, ScheduleSpec(), whole_epoch=True))
    return best


def test_of_equal_top1_the_lower_loss_is_better_and_early_stopping_counts_on() -> None:
    state = RunState()
    assert noted(state, (0.5, 9.0), (0.5, 3.0), (0.5, 3.0), (0.5, 4.0), (0.25, 1.0)) == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (state.best_step, state.best_loss, state.evals_since_best) == (2, 3.0, 4)
    assert noted(state, (0.75, 9.0)) == [True]
    assert (state.best_step, state.best_loss, state.evals_since_best) == (6, 9.0, 0)


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    assert noted(RunState(), (0.5, math.nan), (0.5, math.nan), (0.5, 3.0), (0.5, math.nan)) == [
        True,
        False,
        True,
        False,
    ]


def test_a_checkpoint_without_the_loss_of_its_best_goes_on() -> None:
    before = {"epoch": 2, "step": 8, "best_top1": 0.5, "best_step": 4, "evals_since_best": 1}
    state = RunState.of(Checkpoint({}, {}, before))
    assert noted(state, (0.5, 0.1), (0.75, 2.0), (0.75, 1.0)) == [False, True, True]
    assert state.best_step == 11


def test_a_clock_goes_on_from_earlier_parts_and_knows_how_old_the_last_checkpoint_is() -> None:
    clock = RunClock(3600.0)
    assert 3600.0 <= clock.seconds < 3700.0
    often, never = TrainSpec(checkpoint_every_minutes=1e-12), TrainSpec(checkpoint_every_minutes=None)
    assert clock.is_save_late(often)
    assert not clock.is_save_late(never)
    clock.saved()
    assert not clock.is_save_late(TrainSpec(checkpoint_every_minutes=60.0))

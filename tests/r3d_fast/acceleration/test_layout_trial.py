"""The trial of layouts, run truly on the CPU with tiny networks: what it times, what it decides, what it leaves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest
from from_config import a_learner
from tiny import OVERRIDES

import r3d_fast.acceleration.layout_trial
from pipelines.errors import UsageError
from r3d_fast.acceleration.layout_trial import Attempt, Layout, Trial, candidates, stored_layout, try_layouts
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import load_config
from r3d_fast.learning.learner import Learner, step_on_noise

FIRST, LAST, PADDED = Layout("NCDHW"), Layout("NDHWC"), Layout("NDHWC", padded_stem=True)
ROWS = 2


def begin(layout: Layout, forward: Any = None) -> Callable[[], Any]:
    config = load_config("demo", [*OVERRIDES, f"model.data_format={layout.data_format}"])
    learner = a_learner(config, 8, Precision(), "cpu")
    if forward is not None:
        learner._step._forward = forward
    return step_on_noise(learner, ROWS, config.clip, config.augment.size_px)


@pytest.mark.parametrize(
    ("wanted", "precision", "device", "expected"),
    [
        ("auto", "fp16", "gpu", (LAST, PADDED, FIRST)),
        ("auto", "bf16", "gpu", (LAST, PADDED, FIRST)),
        ("auto", "fp32", "gpu", (FIRST,)),
        ("auto", "fp32", "cpu", (FIRST,)),
        ("NCDHW", "fp16", "gpu", (FIRST,)),
        ("NDHWC", "fp16", "gpu", (LAST,)),
        ("NDHWC", "fp32", "cpu", (LAST,)),
    ],
)
def test_only_auto_in_half_precision_on_a_gpu_has_a_choice(
    wanted: Any, precision: Any, device: str, expected: tuple[Layout, ...]
) -> None:
    assert candidates(wanted, Precision(precision, "O2"), device) == expected


@pytest.mark.parametrize(
    ("seconds", "winner"),
    [
        ((0.5, 0.4, 0.3), FIRST),
        ((0.5, 0.3, 0.4), PADDED),
        ((0.3, 0.4, 0.5), LAST),
        ((0.3, 0.297, 0.296), LAST),  # a difference that chance can make
        ((None, 0.5, 0.6), PADDED),
        ((None, None, 0.6), FIRST),
        ((0.6, None, None), LAST),
        ((None, None, None), LAST),  # training says what the matter is
    ],
)
def test_the_layout_whose_steps_are_clearly_the_shortest_wins(seconds: Any, winner: Layout) -> None:
    attempts = tuple(map(Attempt, (LAST, PADDED, FIRST), seconds))
    assert Trial(attempts, 64, 9.0).layout == winner


def test_a_trial_says_in_one_line_and_in_a_record_what_it_found() -> None:
    attempts = (Attempt(LAST, 0.25), Attempt(PADDED, 0.2), Attempt(FIRST, None, "runs out of memory"))
    trial = Trial(attempts, 64, 12.5)
    assert str(trial) == (
        "layout NDHWC with a padded stem, by a trial of 10 steps each: NDHWC 256.0 clips/s, "
        "NDHWC with a padded stem 320.0 clips/s, NCDHW runs out of memory"
    )
    assert trial.record(7) == {
        "kind": "layout", "step": 7, "data_format": "NDHWC", "padded_stem": True, "seconds": 12.5,
        "tried": [
            {"data_format": "NDHWC", "padded_stem": False, "clips_per_second": 256.0, "failure": None},
            {"data_format": "NDHWC", "padded_stem": True, "clips_per_second": 320.0, "failure": None},
            {"data_format": "NCDHW", "padded_stem": False, "clips_per_second": None, "failure": "runs out of memory"},
        ],
    }  # fmt: skip


def test_steps_are_timed_after_a_warm_up_and_nothing_is_left_of_the_trial() -> None:
    taken: dict[Layout, int] = {}
    learners: list[weakref.ref[Learner]] = []

    def counted(layout: Layout) -> Callable[[], Any]:
        step, taken[layout] = begin(layout), 0
        learner = next(cell.cell_contents for cell in step.__closure__ or () if isinstance(cell.cell_contents, Learner))
        learners.append(weakref.ref(learner))

        def take() -> None:
            taken[layout] += 1
            assert step().applied

        return take

    paddle.seed(5)
    expected = paddle.rand([4]).numpy()
    paddle.seed(5)
    trial = try_layouts((LAST, FIRST), counted, ROWS, "cpu")
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), expected)
    assert taken == {LAST: 13, FIRST: 13}
    assert [attempt.failure for attempt in trial.attempts] == [None, None]
    assert sum(attempt.seconds or 0.0 for attempt in trial.attempts) * 10 < trial.seconds
    gc.collect()
    assert [learner() for learner in learners] == [None, None]


def test_a_layout_that_fails_or_runs_out_of_memory_loses() -> None:
    def full(clips: Any) -> Any:
        raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 9.5GB memory")

    def failing(layout: Layout) -> Callable[[], Any]:
        if layout == LAST:
            raise RuntimeError("a long text\n\nno kernel for this layout")
        return begin(layout, full if layout == PADDED else None)

    trial = try_layouts((LAST, PADDED, FIRST), failing, ROWS, "cpu")
    assert trial.layout == FIRST
    failures = [attempt.failure for attempt in trial.attempts]
    assert failures == ["fails (no kernel for this layout)", "runs out of memory", None]


def test_an_error_of_the_user_ends_a_trial() -> None:
    def misnamed(layout: Layout) -> Callable[[], Any]:
        raise UsageError("init.freeze_until 'layre4': no such part")

    with pytest.raises(UsageError, match="no such part"):
        try_layouts((LAST, FIRST), misnamed, ROWS, "cpu")


def test_flags_are_as_before_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"FLAGS_cudnn_exhaustive_search": False}
    now = dict(kept)
    monkeypatch.setattr("r3d_fast.acceleration.gpu.flags", lambda: dict(now))
    monkeypatch.setattr(paddle, "set_flags", now.update)
    monkeypatch.setattr(r3d_fast.acceleration.layout_trial, "STEPS", 1)

    def sets_flags(layout: Layout) -> Callable[[], Any]:
        now["FLAGS_cudnn_exhaustive_search"] = True
        return begin(layout)

    try_layouts((FIRST,), sets_flags, ROWS, "cpu")
    assert now == kept


def test_a_stored_layout_is_that_of_the_same_precision() -> None:
    state = {"precision": "fp16 O1", "layout": {"data_format": "NDHWC", "padded_stem": True}}
    assert stored_layout(state, Precision("fp16")) == PADDED
    assert stored_layout(state, Precision("bf16")) is None
    assert stored_layout({"precision": "fp16 O1"}, Precision("fp16")) is None  # of an earlier version

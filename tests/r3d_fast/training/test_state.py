"""What is due after a step."""

from __future__ import annotations

from typing import Any

import pytest

from r3d_fast.config.sections import TrainSpec
from r3d_fast.ranks.group import News
from r3d_fast.training.state import Due, RunClock, RunState, due_after

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


def test_a_clock_goes_on_from_earlier_parts_and_knows_how_old_the_last_checkpoint_is() -> None:
    clock = RunClock(3600.0)
    assert 3600.0 <= clock.seconds < 3700.0
    often, never = TrainSpec(checkpoint_every_minutes=1e-12), TrainSpec(checkpoint_every_minutes=None)
    assert clock.is_save_late(often)
    assert not clock.is_save_late(never)
    clock.saved()
    assert not clock.is_save_late(TrainSpec(checkpoint_every_minutes=60.0))

"""The time that a run has left: its steps by the latest ones, and each evaluation that is still to come."""

from __future__ import annotations

import pytest

from r3d_fast.config.sections import TrainSpec
from r3d_fast.training.forecast import Forecast
from r3d_fast.training.state import RunState

SPEC = TrainSpec(epochs=5, eval_every_epochs=2)  # evaluations after epochs 2, 4 and 5


def test_nothing_is_known_before_the_first_step_without_a_trial() -> None:
    assert Forecast(SPEC, RunState(), 10).seconds_left() is None
    assert Forecast(SPEC, RunState(), 10, 2.0, 30.0).seconds_left() == 50 * 2.0 + 3 * 30.0


def test_steps_count_by_the_latest_and_not_by_the_first() -> None:
    forecast = Forecast(SPEC, RunState(), 10)
    forecast.step(60.0)  # it makes graphs
    assert forecast.seconds_left() == 49 * 60.0
    for _ in range(4):
        forecast.step(2.0)
    assert forecast.seconds_left() == 45 * 2.0
    by_trial = Forecast(SPEC, RunState(), 10, 1.0)
    by_trial.step(60.0)
    assert by_trial.seconds_left() == 49 * 1.0


def test_a_run_that_goes_on_has_less_left() -> None:
    state = RunState(epoch=3, step=34)
    forecast = Forecast(SPEC, state, 10, 2.0, 30.0)
    forecast.begin_epoch(4)
    assert forecast.seconds_left() == 16 * 2.0 + 2 * 30.0
    state.epoch = 4
    forecast.begin_epoch(10)
    assert forecast.seconds_left() == 30.0


def test_an_evaluation_counts_down_batch_by_batch() -> None:
    state = RunState(epoch=1)
    forecast = Forecast(SPEC, state, 10, 1.0)
    forecast.begin_epoch(10)
    assert forecast.seconds_left() == 30.0
    forecast.evaluating(0.25, 10.0)  # so one takes 40 s
    assert forecast.seconds_left() == 30 * 1.0 + 2.75 * 40.0
    forecast.evaluating(1.0, 40.0)
    forecast.evaluated()
    state.epoch = 2
    forecast.begin_epoch(0)
    assert forecast.seconds_left() == 30 * 1.0 + 2 * 40.0


def test_in_a_first_evaluation_nothing_is_known_before_its_batches() -> None:
    forecast = Forecast(TrainSpec(epochs=1), RunState(), 2)
    for _ in range(2):
        forecast.step(3.0)
    assert forecast.seconds_left() == 0.0
    forecast.begin_evaluation()
    assert forecast.seconds_left() is None
    forecast.evaluating(0.25, 10.0)
    assert forecast.seconds_left() == 30.0


def test_the_first_estimate_comes_once_and_only_where_there_was_no_trial() -> None:
    forecast, by_trial = Forecast(SPEC, RunState(), 10), Forecast(SPEC, RunState(), 10, 1.0, 1.0)
    told = []
    for seconds in (60.0, 6.0, 6.0, 6.0):
        forecast.step(seconds)
        by_trial.step(seconds)
        told.append(forecast.first_estimate())
        assert by_trial.first_estimate() is None
    assert told == [None, None, "time: about 1:00 an epoch, 4:42 left without evaluations, by the first steps", None]


def test_a_limit_of_time_is_foreseen() -> None:
    spec = TrainSpec(epochs=100, max_minutes=2.0)
    assert Forecast(spec, RunState(seconds=50.0), 10, 9.0).seconds_left() == pytest.approx(70.0)

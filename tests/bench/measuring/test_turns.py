"""Contenders in turns, and how many batches a turn has."""

from __future__ import annotations

import pytest
from waiting import FakeClock

from bench.measuring.turns import WARM_BATCHES, Pace, Turn, batches_lasting, take_turns


class Slow:
    """Makes batches of 2 clips, those after the first few in 0.01 s each, by `clock`."""

    def __init__(self, name: str = "slow", clock: FakeClock | None = None) -> None:
        self.name, self.made, self.clock = name, 0, clock or FakeClock()

    def make(self, batches: int) -> int:
        for _ in range(batches):
            self.made += 1
            if self.made > WARM_BATCHES:
                self.clock.pass_by(0.01)
        return 2 * batches

    def costs(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...


def test_a_turn_is_as_many_batches_as_last_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made ahead, which takes no time, isn't counted."""
    clock = FakeClock()
    monkeypatch.setattr("bench.measuring.turns.perf_counter", clock)
    assert batches_lasting(0.495, Slow(clock=clock)) == 50
    assert batches_lasting(0.001, Slow(clock=clock)) == 1


def test_after_each_round_its_turns_are_noted() -> None:
    noted: list[list[int]] = []

    def note(turns: dict[str, list[Turn]]) -> None:
        noted.append([len(own) for own in turns.values()])

    contenders = [Slow("a"), Slow("b")]
    turns = take_turns(contenders, 2, lambda _: Pace(1, 0), lambda _: None, note=note)
    assert noted == [[1, 1], [2, 2]]
    assert [len(turns[name]) for name in "ab"] == [2, 2]

"""Contenders in turns, and how many batches a turn has."""

from __future__ import annotations

import time

import pytest

from bench.measuring.turns import WARM_BATCHES, Pace, Turn, batches_lasting, take_turns


class Sleeper:
    """Makes batches of 2 clips, those after the first few in 0.01 s each."""

    def __init__(self, name: str = "sleeper") -> None:
        self.name, self.made = name, 0

    def make(self, batches: int) -> int:
        for _ in range(batches):
            self.made += 1
            if self.made > WARM_BATCHES:
                time.sleep(0.01)
        return 2 * batches

    def costs(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...


def test_a_turn_is_as_many_batches_as_last_so_long() -> None:
    """What was made ahead, which takes no time, isn't counted."""
    assert batches_lasting(0.5, Sleeper()) == pytest.approx(48, abs=6)
    assert batches_lasting(0.001, Sleeper()) == 1


def test_after_each_round_its_turns_are_noted() -> None:
    noted: list[list[int]] = []

    def note(turns: dict[str, list[Turn]]) -> None:
        noted.append([len(own) for own in turns.values()])

    contenders = [Sleeper("a"), Sleeper("b")]
    turns = take_turns(contenders, 2, lambda _: Pace(1, 0), lambda _: None, note=note)
    assert noted == [[1, 1], [2, 2]]
    assert [len(turns[name]) for name in "ab"] == [2, 2]

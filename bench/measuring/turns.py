"""Contenders measured in turns, A B C A B C, so that what slows the machine for a while slows all of them.

A turn begins when the one before has filled its queues and rests; then come batches that are not timed, which empty
what was made ahead and leave the contender in the state in which it delivers as fast as it produces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from time import perf_counter, sleep
from typing import Any, Protocol

from pipelines.machine.processes import tree_cpu_seconds

WARM_BATCHES = 6  # more than any contender makes ahead
GPU_TURN_SECONDS = 2.0  # a server makes some batches in less time than its clock frequencies take to settle
_TRIED_BATCHES = 3
_REST_SECONDS = 0.1
_LONGEST_REST = 300  # of these
Say = Callable[[str], None]
Samplers = Mapping[str, AbstractContextManager[Any]]


@dataclass(frozen=True)
class Pace:
    """What a contender makes in a turn: batches that are not timed, then `batches` that are."""

    batches: int
    warm: int = WARM_BATCHES


@dataclass(frozen=True)
class Turn:
    """What a contender did in one turn; `costs` are those of `Contender.costs`, of this turn alone."""

    clips: int
    seconds: float
    cpu_seconds: float
    costs: dict[str, float]


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    pace: Callable[[str], Pace],
    say: Say,
    samplers: Samplers | None = None,
    note: Callable[[dict[str, list[Turn]]], None] = lambda _: None,
) -> dict[str, list[Turn]]:
    """The turns of each contender by its name; a round more than asked for is made, the first, and thrown away.

    `pace` says what the contender of a name makes in a turn; its sampler, if it has one, is entered while it is timed.
    `note` is given the turns so far after each round.
    """
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warming up")
        for contender in contenders:
            _wait_for_rest()
            own = pace(contender.name)
            contender.make(own.warm)
            sampler = (samplers or {}).get(contender.name) if number else None
            with sampler or nullcontext():
                turn = _take_turn(contender, own.batches)
            if number:
                turns[contender.name].append(turn)
        if number:
            note(turns)
    return turns


def batches_lasting(seconds: float, contender: Contender) -> int:
    """How many batches `contender` makes in `seconds` at least, tried on a few after those it has made ahead."""
    contender.make(WARM_BATCHES)
    begin = perf_counter()
    contender.make(_TRIED_BATCHES)
    return ceil(seconds * _TRIED_BATCHES / (perf_counter() - begin))


def _take_turn(contender: Contender, batches: int) -> Turn:
    before, cpu, begin = contender.costs(), tree_cpu_seconds(), perf_counter()
    clips = contender.make(batches)
    seconds = perf_counter() - begin
    costs = {name: value - before[name] for name, value in contender.costs().items()}
    return Turn(clips, seconds, tree_cpu_seconds() - cpu, costs)


def _wait_for_rest() -> None:
    """Return when the processes below this one have nothing left to do, or after a time in which any would be done."""
    for _ in range(_LONGEST_REST):
        before = tree_cpu_seconds()
        sleep(_REST_SECONDS)
        if tree_cpu_seconds() - before < 0.2 * _REST_SECONDS:
            return


class Contender(Protocol):
    """Something that makes batches without end."""

    name: str

    def make(self, batches: int) -> int:
        """Clips made, after `batches` more batches."""

    def costs(self) -> dict[str, float]:
        """What it has cost so far, of those of bytes_read, waited_seconds, step_seconds and steps that it counts."""

    def close(self) -> None:
        """End its processes."""

"""How a batch is shared between DALI's decoder and PyAV's processes: found by measurement in the first batches.

Some batches are left to DALI as a whole and some to PyAV, each timed alone. While DALI works on a batch the processes
decode the next one, so a batch takes as long as the slower of the two does; the share that makes that least is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Of each share the first batch is for warming up (sessions of NVDEC, memory), and the better of the other two counts.
_TRIALS = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
_UNTIL_KNOWN = 0.5  # of batches that are planned while the last trials are still on their way
_WORTH_IT = 0.95  # the simpler way is taken where it is nearly as fast


@dataclass(frozen=True)
class Routing:
    """Who decodes: `decoder` is pyav, dali or hybrid, `share` the part of the clips DALI could take that it gets."""

    decoder: Literal["pyav", "dali", "hybrid"]
    share: float
    reason: str

    def __str__(self) -> str:
        share = f", {100 * self.share:.0f} % of it by DALI" if self.decoder == "hybrid" else ""
        return f"decoder {self.decoder}{share} ({self.reason})"


@dataclass
class _Cost:
    clips: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return self.seconds / self.clips if self.clips else 0.0


@dataclass
class ShareFinder:
    """Says how the next batch is shared; is told what clips and trial batches cost; settles on a Routing.

    It shares where that is faster than either decoder alone; `always_shares` in any case. A `routing` that is given
    stands.
    """

    batch_size: int
    workers: int
    always_shares: bool = False
    routing: Routing | None = None
    _planned: int = 0
    _trials: list[tuple[int, float]] = field(default_factory=list)  # clips that DALI decoded, seconds of DALI
    _by_dali: _Cost = field(default_factory=_Cost)  # what a clip costs a process that only remuxes it
    _by_pyav: _Cost = field(default_factory=_Cost)

    def plan(self) -> tuple[float, bool]:
        """(share of the next batch, whether it is a trial: one to be timed with nothing else in DALI)."""
        if self.routing is not None:
            return self.routing.share, False
        self._planned += 1
        if self._planned <= len(_TRIALS):
            return _TRIALS[self._planned - 1], True
        return _UNTIL_KNOWN, False

    def forget_planned(self) -> None:
        """Trials that were planned and not noted are off: the epoch was left."""
        self._planned = len(self._trials)

    def note_clips(self, clips: int, seconds: float, *, encoded: bool) -> None:
        """A process took `seconds` for `clips`, remuxed (`encoded`) or decoded."""
        cost = self._by_dali if encoded else self._by_pyav
        cost.clips += clips
        cost.seconds += seconds

    def note_trial(self, encoded: int, seconds: float) -> Routing | None:
        """DALI took `seconds` for a trial batch, `encoded` of its clips to be decoded; the routing with the last one.

        Trials are noted in the order they were planned in.
        """
        self._trials.append((encoded, seconds))
        if len(self._trials) == len(_TRIALS):
            self.routing = self._settle()
        return self.routing

    def _settle(self) -> Routing:
        most = max(encoded for encoded, _ in self._trials)
        whole = min(seconds for _, seconds in self._trials[1:3])
        base = min(seconds for _, seconds in self._trials[4:6])
        each = max(0.0, whole - base) / max(1, most)
        workers = max(1, self.workers)

        def rate(clips: int) -> float:
            """Clips a second with so many of a batch decoded by DALI."""
            by_cpu = ((self.batch_size - clips) * self._by_pyav.mean + clips * self._by_dali.mean) / workers
            return self.batch_size / max(base + clips * each, by_cpu, 1e-9)

        if most == 0:
            return Routing("pyav", 0.0, "DALI took no clip of the first batches")
        shared = range(1, most) if self.always_shares and most > 1 else range(most + 1)
        best = max(shared, key=rate)
        measured = (
            f"clips/s expected: pyav {rate(0):.0f}, dali {rate(most):.0f}, hybrid {rate(best):.0f}; ms a clip: "
            f"PyAV {1000 * self._by_pyav.mean / workers:.2f} on {workers} processes, DALI {1000 * each:.2f}"
        )
        if not self.always_shares:
            if rate(0) >= _WORTH_IT * rate(best):
                return Routing("pyav", 0.0, measured)
            if rate(most) >= _WORTH_IT * rate(best):
                return Routing("dali", 1.0, measured)
        return Routing("hybrid", best / most, measured)


def is_shared_out(row: int, share: float) -> bool:
    """Whether the clip in `row` of a batch is DALI's: rows are spread evenly, the same in every batch."""
    return int((row + 1) * share + 1e-9) > int(row * share + 1e-9)

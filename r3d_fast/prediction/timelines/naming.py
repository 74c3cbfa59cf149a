"""Which classes a timeline names in each hop: the likeliest ones, of probabilities that may be averaged over time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.errors import UsageError
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.top_classes import check_top, likeliest


@dataclass(frozen=True)
class Naming:
    """The `top` likeliest classes of a hop that have at least the probability `threshold`.

    With `smooth_seconds` the probabilities of a hop are first replaced by their mean over all hops whose middle is at
    most half of that from its own. Raises UsageError for a value out of its range.
    """

    top: int = 5
    threshold: float = 0.0
    smooth_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_top(self.top)
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold {self.threshold}: expected a probability, 0 to 1")
        if not 0 <= self.smooth_seconds < float("inf"):
            raise UsageError(f"smooth {self.smooth_seconds}: expected a finite number of seconds, at least 0")


def named(moments: Iterable[Moment], classes: Sequence[str], naming: Naming) -> Iterator[Moment]:
    """`moments` with their classes, in the same order, each as soon as the hops are there that it is averaged over.

    Averages stop at errors, at gaps and at the ends of videos.
    """
    for moment in _smoothed(moments, naming.smooth_seconds):
        if moment.probabilities is None:
            yield moment
            continue
        likely = likeliest(classes, moment.probabilities, naming.top)
        yield replace(moment, classes=tuple(one for one in likely if one[1] >= naming.threshold))


def _smoothed(moments: Iterable[Moment], seconds: float) -> Iterator[Moment]:
    """`moments` with averaged probabilities."""
    run: _Run | None = None
    for moment in moments:
        if run is not None and not run.takes(moment):
            yield from run.rest()
            run = None
        if moment.probabilities is None:
            yield moment
            continue
        run = run or _Run(int(seconds / 2 / (moment.end - moment.start) + 1e-6))
        yield from run.add(moment)
    if run is not None:
        yield from run.rest()


class _Run:
    """Hops without a gap between them, each averaged with the `half` hops before and after it."""

    def __init__(self, half: int) -> None:
        self._half = half
        self._hops: deque[Moment] = deque()  # those that are still needed
        self._next = 0  # the place in `_hops` of the first one that was not given yet

    def takes(self, moment: Moment) -> bool:
        """Whether `moment` goes on where the run is."""
        last = self._hops[-1]
        return moment.probabilities is not None and moment.video == last.video and moment.start - last.end < 1e-6

    def add(self, moment: Moment) -> Iterator[Moment]:
        """Add the next hop; gives the one whose neighbours are there now, if there is one."""
        self._hops.append(moment)
        if self._next + self._half < len(self._hops):
            yield self._give()

    def rest(self) -> Iterator[Moment]:
        """The hops that were not given yet; for use at the end of the run."""
        while self._next < len(self._hops):
            yield self._give()

    def _give(self) -> Moment:
        hops = list(self._hops)[max(0, self._next - self._half) : self._next + self._half + 1]
        moment = self._hops[self._next]
        if self._half:
            values = [hop.probabilities for hop in hops if hop.probabilities is not None]
            moment = replace(moment, probabilities=np.mean(values, axis=0))
        self._next += 1
        if self._next > self._half:  # the newest hop stays, even where nothing is averaged
            drop = min(self._next - self._half, len(self._hops) - 1)
            for _ in range(drop):
                self._hops.popleft()
            self._next -= drop
        return moment

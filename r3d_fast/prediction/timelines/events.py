"""Events: from when to when a class is seen in a video, found in its timeline.

An event of a class begins with the first hop in which the probability of the class reaches the threshold, and goes on
while it stays above GOES_ON of the threshold: so a probability that swings about the threshold makes one event, not
many. Each class has events of its own, so below a threshold of 0.5 those of two classes may overlap. Two events of one
class become one if there are at most as many seconds between them as probabilities are averaged over. A gap in the
timeline (the end of a video, an error, a live source that was cut) ends all events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.errors import UsageError
from r3d_fast.prediction.timelines.moments import Moment

THRESHOLD = 0.5  # the default: more likely than all other classes together
GOES_ON = 0.8  # share of the threshold above which an event goes on
_SAME = 1e-6  # seconds; start and end of hops are sums


@dataclass(frozen=True)
class Event:
    """A class is seen in `video` from `start` to `end`, in seconds.

    `mean` and `peak` are the mean and the highest probability of the class over the hops of the event. `at` is the time
    of day at `start`, for a live source. Where the video can't be read, or not to its end, an event that starts there
    has an `error` and no label.
    """

    video: str
    start: float
    end: float
    label: str = ""
    mean: float = 0.0
    peak: float = 0.0
    error: str | None = None
    at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The event as JSON values."""
        values: dict[str, Any] = {"video": self.video, "start": self.start, "end": self.end}
        if self.at is not None:
            values["at"] = self.at.isoformat(timespec="milliseconds")
        if self.error is not None:
            return {**values, "error": self.error}
        return {**values, "label": self.label, "mean": self.mean, "peak": self.peak}


def check_threshold(threshold: float) -> None:
    """Raise UsageError if `threshold` can't be one of events: it has to be above 0 and at most 1."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold {threshold}: expected a probability above 0, at most 1")


def events(
    moments: Iterable[Moment], classes: Sequence[str], *, threshold: float = THRESHOLD, merge_seconds: float = 0.0
) -> Iterator[Event]:
    """The events in `moments`, each as soon as it has ended, and an Event with the error for each moment that has one.

    Events that end together come in the order in which they began. `merge_seconds`: two events of one class that are at
    most so far apart become one.
    """
    seen: dict[int, _Seen] = {}  # by the number of the class
    last: Moment | None = None
    for moment in moments:
        if last is not None and (moment.video != last.video or moment.start - last.end > _SAME):
            yield from _ended(seen, list(seen), classes)
        last = moment
        if moment.probabilities is None:
            yield from _ended(seen, list(seen), classes)
            if moment.error is not None:
                yield Event(moment.video, moment.start, moment.end, error=moment.error, at=moment.at)
            continue
        for number, probability in enumerate(moment.probabilities.tolist()):
            if number in seen:
                seen[number].add(moment, probability, threshold)
            elif probability >= threshold:
                seen[number] = _Seen(moment, probability)
        over = [number for number, one in seen.items() if moment.end - one.end > merge_seconds + _SAME]
        yield from _ended(seen, over, classes)
    yield from _ended(seen, list(seen), classes)


class _Seen:
    """An event that may go on. Hops below the threshold count only once it is back above it."""

    def __init__(self, first: Moment, probability: float) -> None:
        self.first, self.end, self.peak = first, first.end, probability
        self._total, self._count = probability, 1
        self._below, self._below_count = 0.0, 0
        self._is_on = True

    def add(self, moment: Moment, probability: float, threshold: float) -> None:
        """Count the next hop of the timeline."""
        self._is_on = probability >= (GOES_ON * threshold if self._is_on else threshold)
        self._below, self._below_count = self._below + probability, self._below_count + 1
        if self._is_on:
            self._total, self._count = self._total + self._below, self._count + self._below_count
            self._below, self._below_count = 0.0, 0
            self.end, self.peak = moment.end, max(self.peak, probability)

    def event(self, label: str) -> Event:
        """The event, ended where the class was last seen."""
        first = self.first
        return Event(first.video, first.start, self.end, label, self._total / self._count, self.peak, at=first.at)


def _ended(seen: dict[int, _Seen], numbers: list[int], classes: Sequence[str]) -> Iterator[Event]:
    """The events of the classes `numbers`, which are removed from `seen`, in the order in which they began."""
    for number in sorted(numbers, key=lambda number: (seen[number].first.start, number)):
        yield seen.pop(number).event(classes[number])

"""ShareFinder: measures in the first batches which share of each batch DALI is to decode, and with how many threads.

1. Trials: three batches that DALI decodes, as far as it can, with each number of threads that is tried; then three that
   PyAV decodes. Each is timed with nothing else in DALI. From these follow the clips a second that each share gives.
2. A check: if DALI is to decode, three batches are loaded so as always, then three by PyAV alone. DALI is given up if
   its batches took clearly longer.

The time of a batch includes what else the GPU does meanwhile, such as a training step. That goes for both kinds of
trials and for both halves of the check. Where training is slower than loading, the halves differ only by chance.
Neither trials nor check change the frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, NamedTuple

_EACH = 3  # batches of each trial. The first one warms up (sessions of NVDEC, memory); of the others the faster counts
_CHECKED = 3  # batches of each half of the check, after one in which the way of loading changes
_UNTIL_KNOWN = 0.5  # DALI's share of the batches that are planned before the last trial has been measured
# One decoder alone is used if it reaches this share of the speed of both together, and DALI stays if it reaches this
# share of the speed of PyAV in the check.
_WORTH_IT = 0.95


@dataclass(frozen=True)
class Routing:
    """Who decodes the clips, and why.

    `decoder` is pyav, dali or hybrid. `share` is the share of the clips that DALI gets, of those that it can decode.
    `reason` says why, with the measured speeds if there are any. `threads` are those of DALI where several numbers of
    threads were tried, else None.
    """

    decoder: Literal["pyav", "dali", "hybrid"]
    share: float
    reason: str
    threads: int | None = None

    def __str__(self) -> str:
        share = f", {100 * self.share:.0f} % of it by DALI" if self.decoder == "hybrid" else ""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)} of DALI" if self.threads else ""
        return f"decoder {self.decoder}{share}{threads} ({self.reason})"


class BatchPlan(NamedTuple):
    """How a batch is made: DALI decodes `share` of its clips with `threads` threads.

    A trial is timed with nothing else in DALI. `check` is 1 for a batch that is loaded as the trials say, 2 for one by
    PyAV alone beside it, else 0.
    """

    share: float
    threads: int
    is_trial: bool = False
    check: int = 0


@dataclass
class _Cost:
    """Seconds that processes took for a number of clips."""

    clips: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return self.seconds / self.clips if self.clips else 0.0


class _Trial(NamedTuple):
    """A measured batch: clips that DALI decoded, seconds of DALI, CPU seconds of this process meanwhile."""

    encoded: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class DecodingCosts:
    """What the trials say of DALI with one number of threads, beside PyAV. All times are seconds.

    A batch takes DALI `base`, in which this process uses `base_cpu` of CPU time, and for each clip that DALI decodes
    `each` and `each_cpu` more: its threads wait for NVDEC, which may keep a core busy. One of `workers` processes takes
    `by_pyav` to decode a clip and `by_remuxing` to give it to DALI.
    """

    batch_size: int
    workers: int
    base: float
    base_cpu: float
    each: float
    each_cpu: float
    by_pyav: float
    by_remuxing: float

    def rate(self, clips: int) -> float:
        """The clips a second to expect if DALI decodes `clips` of each batch.

        DALI works beside the workers. The CPU time of this process is charged to the workers, whose cores it takes.
        """
        own = self.base_cpu + clips * self.each_cpu
        decoding = (self.batch_size - clips) * self.by_pyav + clips * self.by_remuxing
        return self.batch_size / max(self.base + clips * self.each, (decoding + own) / self.workers, 1e-9)


@dataclass
class _Check:
    """A routing that the trials chose, beside PyAV alone: the seconds of each batch of either."""

    routing: Routing
    with_dali: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


@dataclass
class ShareFinder:
    """Decides which share of each batch DALI decodes, from measurements of the first batches.

    `plan` says how the next batch is made. `note_clips`, `note_trial` and `note_batch` take the measurements; after the
    last one `routing` is set. Both decoders are used if that is faster than either alone, or if `always_shares` is
    true; then nothing is checked either. If `routing` is given from the start, only the `threads` of DALI are tried,
    where there are several. `repeats` are the batches that share their decoding.
    """

    batch_size: int
    workers: int
    always_shares: bool = False
    routing: Routing | None = None
    threads: Sequence[int] = (1,)
    repeats: int = 1
    _planned: int = 0
    _trials: list[_Trial] = field(default_factory=list)
    _by_dali: _Cost = field(default_factory=_Cost)  # of a worker that only remuxes a clip, for DALI to decode
    _by_pyav: _Cost = field(default_factory=_Cost)
    _check: _Check | None = None

    def __post_init__(self) -> None:
        self._given = self.routing
        shares = [self.routing.share] if self.routing else [1.0]
        plans = [BatchPlan(shares[0], count, is_trial=True) for count in self.threads]
        if self.routing is None:
            plans.append(BatchPlan(0.0, self.threads[-1], is_trial=True))
        elif len(plans) == 1 or not self.routing.share:
            plans = []
        self._plans = [plan for plan in plans for _ in range(_EACH)]
        if plans:
            self.routing = None

    @property
    def settled_threads(self) -> int:
        """The threads of DALI in the next batch that is no trial."""
        chosen = self.routing or (self._check.routing if self._check else None)
        return (chosen.threads if chosen else None) or self.threads[-1 if self._planned else 0]

    def plan(self) -> BatchPlan:
        """How the next batch is made."""
        if self.routing is not None:
            return BatchPlan(self.routing.share, self.settled_threads)
        if self._planned < len(self._plans):
            self._planned += 1
            return self._plans[self._planned - 1]
        if self._check is None:
            return BatchPlan(self._given.share if self._given else _UNTIL_KNOWN, self.settled_threads)
        half = self._half()
        return BatchPlan(self._check.routing.share if half == 1 else 0.0, self.settled_threads, check=half)

    def forget_planned(self) -> None:
        """Forget the batches that were planned but not measured, because the epoch was left before."""
        self._planned = len(self._trials)

    def note_clips(self, clips: int, seconds: float, *, encoded: bool) -> None:
        """Note that a worker took `seconds` for `clips`, to remux them for DALI (`encoded`) or to decode them.

        What is noted after the trials counts no more.
        """
        if len(self._trials) < len(self._plans):
            cost = self._by_dali if encoded else self._by_pyav
            cost.clips += clips
            cost.seconds += seconds

    def note_trial(self, encoded: int, seconds: float, cpu_seconds: float) -> None:
        """Note that DALI took `seconds` for a trial batch in which it decoded `encoded` clips.

        `cpu_seconds` is the CPU time of this process in these seconds. Trials must be noted in the order in which they
        were planned.
        """
        self._trials.append(_Trial(encoded, seconds, cpu_seconds))
        if len(self._trials) < len(self._plans):
            return
        if self._given is not None:
            self.routing = self._with_fastest_threads(self._given)
            return
        chosen = self._choose()
        if self.always_shares or chosen.decoder == "pyav":
            self.routing = chosen
        else:
            self._check = _Check(chosen)

    def note_batch(self, plan: BatchPlan, seconds: float | None) -> None:
        """Note that a batch of `plan` came `seconds` after the one before it; None if loading began anew with it.

        The seconds are those of the caller too, so a caller that takes longer than loading makes both halves equal.
        """
        if self._check is None or self.routing is not None or plan.check != self._half():
            return
        half = self._check.with_dali if plan.check == 1 else self._check.alone
        if seconds is None:
            half.clear()
        else:
            half.append(seconds)
        if self._half() == 3:
            self.routing = self._checked(self._check)

    def _half(self) -> int:
        """Which half of the check is next: 1, 2, or 3 if it is over."""
        assert self._check is not None
        wanted = (1 + _CHECKED) * self.repeats
        return 1 + (len(self._check.with_dali) >= wanted) + (len(self._check.alone) >= wanted)

    def _checked(self, check: _Check) -> Routing:
        """The routing of the check, or PyAV alone if that was clearly faster."""
        chosen, with_dali, alone = check.routing, self._typical(check.with_dali), self._typical(check.alone)
        took = f"then a batch took {1000 * with_dali:.1f} ms by {chosen.decoder}, {1000 * alone:.1f} ms by pyav"
        if _WORTH_IT * with_dali <= alone:
            return replace(chosen, reason=f"{chosen.reason}; {took}")
        return Routing("pyav", 0.0, f"{chosen.reason}; {took}, so {chosen.decoder} was given up")

    def _typical(self, seconds: Sequence[float]) -> float:
        """The median time of a batch, without those of the first round, in which the way of loading changes."""
        starts = range(self.repeats, len(seconds), self.repeats)
        return median(sum(seconds[start : start + self.repeats]) / self.repeats for start in starts)

    def _of_plan(self, place: int) -> list[_Trial]:
        """The trials of one kind that count: those after the first one."""
        return self._trials[place * _EACH + 1 : (place + 1) * _EACH]

    def _with_fastest_threads(self, routing: Routing) -> Routing:
        took = [min(trial.seconds for trial in self._of_plan(place)) for place in range(len(self.threads))]
        each = ", ".join(f"{count}: {1000 * time:.1f}" for count, time in zip(self.threads, took, strict=True))
        fastest = self.threads[took.index(min(took))]
        return replace(routing, reason=f"{routing.reason}; ms a batch by threads: {each}", threads=fastest)

    def _costs(self, place: int, most: int) -> DecodingCosts:
        """What the trials say of the number of threads at `place`."""
        whole, base = self._of_plan(place), self._of_plan(len(self.threads))
        seconds, without = (min(trial.seconds for trial in trials) for trials in (whole, base))
        cpu, cpu_without = (min(trial.cpu_seconds for trial in trials) for trials in (whole, base))
        return DecodingCosts(
            self.batch_size, max(1, self.workers), without, cpu_without, max(0.0, seconds - without) / max(1, most),
            max(0.0, cpu - cpu_without) / max(1, most), self._by_pyav.mean, self._by_dali.mean,
        )  # fmt: skip

    def _choose(self) -> Routing:
        """The fastest routing by the trials."""
        most = max(trial.encoded for trial in self._trials)
        if most == 0:
            return Routing("pyav", 0.0, "DALI took no clip of the first batches")
        shared = range(1, most) if self.always_shares and most > 1 else range(most + 1)
        costs = [self._costs(place, most) for place in range(len(self.threads))]
        found = [(cost.rate(clips), -place, clips) for place, cost in enumerate(costs) for clips in shared]
        _, place, best = max(found, key=lambda one: one[:2])
        cost, threads = costs[-place], self.threads[-place]
        each = [f"{1000 * one.each:.2f}" for one in costs]
        if len(each) > 1:
            counts = [f"{count} thread{'s' * (count > 1)}" for count in self.threads]
            each = [f"{took} by {count}" for took, count in zip(each, counts, strict=True)]
        measured = (
            f"clips/s expected: pyav {cost.rate(0):.0f}, dali {cost.rate(most):.0f}, hybrid {cost.rate(best):.0f}; "
            f"ms a clip: PyAV {1000 * cost.by_pyav / cost.workers:.2f} on {cost.workers} processes, "
            f"DALI {', '.join(each)}, CPU time of this process {1000 * cost.each_cpu:.2f}"
        )
        tried = threads if len(self.threads) > 1 else None
        if not self.always_shares:
            if cost.rate(0) >= _WORTH_IT * cost.rate(best):
                return Routing("pyav", 0.0, measured)
            if cost.rate(most) >= _WORTH_IT * cost.rate(best):
                return Routing("dali", 1.0, measured, tried)
        return Routing("hybrid", best / most, measured, tried)


def is_shared_out(row: int, share: float) -> bool:
    """Whether DALI decodes the clip in `row` of a batch. Its rows are spread evenly and are the same in every batch."""
    return int((row + 1) * share + 1e-9) > int(row * share + 1e-9)

"""The figures of contenders, and the runs in which contenders took turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from bench.measuring.gpu_use import GpuUse
from bench.measuring.machine import STRICT
from bench.measuring.turns import Turn
from pipelines.errors import UsageError

BASE = "r3d-fast"
SYNTHETIC, LOADER, TRAINING = "synthetic", "loader", "training"  # the contenders of `bench train throughput`
_STAGES = ("read", "decode", "convert", "ship", "augment", "hand-over")


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest. Raises UsageError where there are no values."""
    if not values:
        raise UsageError("no values; expected at least one")
    return statistics.median(values), min(values), max(values)


@dataclass(frozen=True)
class DecoderUse:
    """Who decodes: `decoder` (pyav, dali or hybrid), `share` of the clips that DALI could take (0 to 1), and why."""

    decoder: str
    share: float
    reason: str
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for a share that is none."""
        _check_shares("routing: share", [self.share])


@dataclass(frozen=True)
class Figures:
    """What one contender did in one run: one value a round, in the order measured."""

    name: str
    clips_per_second: tuple[float, ...]
    frames_per_clip: int
    cpu_seconds_per_clip: tuple[float, ...] = ()  # empty where unknown
    bytes_per_clip: float | None = None  # of file read
    stages_ms: dict[str, float] | None = None  # mean wall time a clip
    frames: str = ""  # how the frames compare with the exact ones
    waited: tuple[float, ...] = ()  # share of each round spent waiting for data, 0 to 1
    step_ms: tuple[float, ...] = ()  # mean of each round: a batch fed and a training step, without the wait for data
    loss: tuple[float, ...] = ()  # the first and the last of training
    gpu: GpuUse | None = None
    routing: DecoderUse | None = None
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError for figures that nothing can have measured."""
        if not self.name.strip():
            raise UsageError("a contender without a name")
        if not self.clips_per_second:
            raise UsageError(f"{self.name}: no rounds; expected clips_per_second of at least one")
        _check_values(f"{self.name}: clips_per_second", self.clips_per_second, zero=False)
        _check_values(f"{self.name}: frames_per_clip", [self.frames_per_clip], zero=False)
        _check_values(f"{self.name}: cpu_seconds_per_clip", self.cpu_seconds_per_clip)
        _check_values(f"{self.name}: stages_ms", (self.stages_ms or {}).values())
        if self.bytes_per_clip is not None:
            _check_values(f"{self.name}: bytes_per_clip", [self.bytes_per_clip])
        _check_shares(f"{self.name}: waited", self.waited)
        _check_values(f"{self.name}: step_ms", self.step_ms, zero=False)
        _check_values(f"{self.name}: loss", self.loss)
        for what, values in (("waited", self.waited), ("step_ms", self.step_ms)):
            if values and len(values) != len(self.clips_per_second):
                raise UsageError(f"{self.name}: {what} of {len(values)} rounds; expected {len(self.clips_per_second)}")

    @property
    def median(self) -> float:
        """Median clips per second."""
        return statistics.median(self.clips_per_second)

    @property
    def low(self) -> float:
        """Lowest clips per second."""
        return min(self.clips_per_second)

    @property
    def high(self) -> float:
        """Highest clips per second."""
        return max(self.clips_per_second)

    @property
    def frames_per_second(self) -> float:
        """Median frames per second."""
        return self.median * self.frames_per_clip

    @property
    def cpu_ms(self) -> float | None:
        """Median CPU time of a clip in milliseconds, None where unknown."""
        return 1000 * statistics.median(self.cpu_seconds_per_clip) if self.cpu_seconds_per_clip else None


def figures_of(name: str, turns: Sequence[Turn], frames_per_clip: int, **more: Any) -> Figures:
    """The figures of a contender that took `turns`, one a round; `more` are fields that turns don't tell."""
    # Of all turns together: in a short one nothing may be read, since what it gives was made ahead.
    read = [turn for turn in turns if "bytes_read" in turn.costs]
    return Figures(
        name,
        tuple(turn.clips / turn.seconds for turn in turns),
        frames_per_clip,
        tuple(turn.cpu_seconds / turn.clips for turn in turns),
        sum(turn.costs["bytes_read"] for turn in read) / sum(turn.clips for turn in read) if read else None,
        **more,
    )


@dataclass(frozen=True)
class MeasuredRun:
    """Contenders measured in turns (A B C A B C) at one sampling, number of workers, precision and layout."""

    sampling: str
    workers: int
    figures: tuple[Figures, ...]
    precision: str | None = None  # of training
    layout: str | None = None  # of training
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        """Raise UsageError where contenders can't be told apart or their rounds can't be paired."""
        if not self.figures:
            raise UsageError(f"{self.title}, {self.workers} workers: no contender")
        check_once(self.names)
        rounds = {len(figures.clips_per_second) for figures in self.figures}
        if len(rounds) > 1:
            raise UsageError(f"contenders with {sorted(rounds)} rounds in one run; expected the same number for all")
        _check_values("workers", [self.workers])

    @property
    def title(self) -> str:
        """What sets it apart from other runs but for its workers."""
        return ", ".join(part for part in (self.sampling, self.precision, self.layout) if part)

    @property
    def base(self) -> str | None:
        """The contender that the others are compared with, None where it wasn't measured."""
        return next((name for name in (BASE, TRAINING) if name in self.names), None)

    @property
    def names(self) -> list[str]:
        """The contenders, in order."""
        return [figures.name for figures in self.figures]

    @property
    def rounds(self) -> int:
        """How often each contender was measured."""
        return len(self.figures[0].clips_per_second)

    def __getitem__(self, name: str) -> Figures:
        """The figures of one contender. Raises UsageError, naming those there are, where it wasn't measured."""
        for figures in self.figures:
            if figures.name == name:
                return figures
        raise UsageError(f"no contender {name!r} in this run; there are {', '.join(self.names)}")

    def ratio(self, name: str, base: str = BASE) -> tuple[float, float, float]:
        """Median, lowest and highest of base's clips/s over name's, of each round by itself.

        What slows the machine down for a while slows both of a round and leaves their ratio alone. Raises UsageError
        for a contender that wasn't measured.
        """
        pairs = zip(self[base].clips_per_second, self[name].clips_per_second, strict=True)
        return spread([base_rate / rate for base_rate, rate in pairs])

    def median_ratio(self, name: str) -> float | None:
        """How many times the clips/s of `name` the base gives, the median of the rounds; None without a base."""
        return None if self.base is None else self.ratio(name, self.base)[0]

    def of_ceiling(self) -> tuple[float, float, float]:
        """Median, lowest and highest of training's clips/s over the lower of its two ceilings, round by round.

        Raises UsageError where training or a ceiling wasn't measured.
        """
        rounds = zip(*(self[name].clips_per_second for name in (TRAINING, SYNTHETIC, LOADER)), strict=True)
        return spread([training / min(synthetic, loader) for training, synthetic, loader in rounds])


def stages_of(measured: Sequence[Figures]) -> list[str]:
    """The stages that any of `measured` knows, in the order a clip goes through them."""
    names = dict.fromkeys(name for figures in measured for name in figures.stages_ms or {})
    return [name for name in _STAGES if name in names] + [name for name in names if name not in _STAGES]


def _check_values(what: str, values: Iterable[float], *, zero: bool = True) -> None:
    for value in values:
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise UsageError(f"{what} {value}; expected {'0 or more' if zero else 'more than 0'}")


def _check_shares(what: str, values: Iterable[float]) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise UsageError(f"{what} {value}; expected 0 to 1")


def check_once(names: list[str]) -> None:
    """Raise UsageError where a name is there twice."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is there twice; expected it once")

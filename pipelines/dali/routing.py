"""Who decodes which video: what DALI's decoder takes on a device, and what is left to PyAV."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from pipelines.dali.decoder_check import wrong_frames
from pipelines.dali.versions import cpu_video_codecs
from pipelines.dali_limits import DaliLimits, VideoKind
from pipelines.errors import R3DFastError
from pipelines.machine.device import device_number
from pipelines.machine.nvdec import DALI_CODECS, probe_decoder
from pipelines.video.record import VideoRecord

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex
    from pipelines.stream import ClipStream

_log = logging.getLogger(__name__)


@cache
def dali_limits(device: str) -> DaliLimits:
    """What DALI decodes on `device`: nothing where NVDEC can't be used, which is told once, with the remedy."""
    number = device_number(device)
    if number is None:
        return DaliLimits(cpu_video_codecs())
    decoder = probe_decoder(number)
    if decoder.problem:
        remedy = f"; to use NVDEC: {decoder.to_do}" if decoder.to_do else ""
        _log.warning("%s: PyAV decodes on the CPU, everything else stays on the GPU%s", decoder.problem, remedy)
        return DaliLimits(frozenset(), ())
    return DaliLimits(frozenset({caps.codec for caps in decoder.caps} & set(DALI_CODECS)), decoder.caps)


def choose_decoder(stream: ClipStream, index: VideoIndex, workers: int) -> tuple[ClipStream, ShareFinder]:
    """(stream, finder): who decodes its clips stands in `finder.routing`, or is found out from the first batches.

    Whatever DALI is left with, it has decoded exactly before: see `pipelines/dali/decoder_check.py`.
    """
    wanted, share = stream.decoder, stream.dali_share
    if wanted == "pyav":
        return _by_pyav(stream, "as set")
    if wanted == "auto" and stream.device == "cpu":
        return _by_pyav(stream, "no GPU")
    if not stream.train and (wanted == "auto" or (wanted == "hybrid" and share == "auto")):
        return _by_pyav(stream, "evaluation does not depend on measurements")
    limits = replace(dali_limits(stream.device), sizes=frozenset(index.sizes()))
    exact, refused = set(), []
    for examples, count in index.kinds(stream.split):
        reason = _why_not(examples, limits, str(index.root), stream.device)
        if reason:
            refused.append(f"{count} videos ({VideoKind.of(examples[0])}): {reason}")
        else:
            exact.add(VideoKind.of(examples[0]))
    if refused and limits.codecs:
        _tell_once(f"PyAV decodes what DALI does not: {'; '.join(refused)}")
    if not exact:
        return _by_pyav(stream, "DALI decodes none of these videos here")
    stream = replace(stream, limits=replace(limits, exact=frozenset(exact)))
    if wanted == "dali":
        return stream, ShareFinder(stream.batch_size, workers, routing=Routing("dali", 1.0, "as set"))
    if wanted == "hybrid" and share != "auto":
        return stream, ShareFinder(stream.batch_size, workers, routing=Routing("hybrid", share, "as set"))
    return stream, ShareFinder(stream.batch_size, workers, always_shares=wanted == "hybrid")


@cache
def _tell_once(text: str) -> None:
    _log.warning(text)


def _by_pyav(stream: ClipStream, reason: str) -> tuple[ClipStream, ShareFinder]:
    return replace(stream, limits=None), ShareFinder(stream.batch_size, 0, routing=Routing("pyav", 0.0, reason))


def _why_not(examples: Sequence[VideoRecord], limits: DaliLimits, root: str, device: str) -> str:
    """Why DALI does not get a kind of video, in words; empty if it does. The first example that can be read decides."""
    reason = ""
    for record in examples:
        reason = limits.refuses(record)
        if reason:
            continue
        try:
            return wrong_frames(record, root, device)
        except R3DFastError as error:
            reason = str(error)
    return reason


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
            self.routing = self._choose()
        return self.routing

    def _choose(self) -> Routing:
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

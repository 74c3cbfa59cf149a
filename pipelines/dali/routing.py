"""Decides which clips DALI decodes and which ones PyAV decodes."""

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
def limits_of_device(device: str) -> DaliLimits:
    """The kinds of video that DALI can decode on `device`.

    If NVDEC of the GPU `device` can't be used, there are none, and a warning says what to do.
    """
    number = device_number(device)
    if number is None:
        return DaliLimits(cpu_video_codecs())
    decoder = probe_decoder(number)
    if decoder.problem:
        remedy = f"; to use NVDEC: {decoder.to_do}" if decoder.to_do else ""
        _log.warning("%s: PyAV decodes on the CPU, everything else runs on the GPU%s", decoder.problem, remedy)
        return DaliLimits(frozenset(), ())
    return DaliLimits(frozenset({caps.codec for caps in decoder.caps} & set(DALI_CODECS)), decoder.caps)


def choose_decoder(stream: ClipStream, index: VideoIndex, workers: int) -> tuple[ClipStream, ShareFinder]:
    """(`stream` with the limits of DALI filled in, the finder of the share of clips that DALI decodes).

    `finder.routing` says which decoder is used; it is None until the first batches have measured that. DALI gets a kind
    of video only if it gave the right frames of one example of it (pipelines/dali/decoder_check.py).
    """
    wanted, share = stream.decoder, stream.dali_share
    if wanted == "pyav":
        return _by_pyav(stream, "as set")
    if wanted == "auto" and stream.device == "cpu":
        return _by_pyav(stream, "no GPU")
    if not stream.train and (wanted == "auto" or (wanted == "hybrid" and share == "auto")):
        return _by_pyav(stream, "evaluation does not depend on measurements")
    sizes = frozenset(index.sizes())
    limits = replace(limits_of_device(stream.device), sizes=sizes, whole_units=wanted != "dali")
    exact, refused = set(), []
    for kind, (examples, count) in _kinds(index, stream.split).items():
        reason = _why_not(examples, limits, str(index.root), stream.device)
        if reason:
            refused.append(f"{count} videos ({kind}): {reason}")
        else:
            exact.add(kind)
    if refused and limits.codecs:
        _tell_once(f"PyAV decodes the videos that DALI can't: {'; '.join(refused)}")
    if not exact:
        return _by_pyav(stream, "DALI decodes none of these videos here")
    stream = replace(stream, limits=replace(limits, exact=frozenset(exact)))
    if wanted == "dali":
        return stream, ShareFinder(stream.batch_size, workers, routing=Routing("dali", 1.0, "as set"))
    if wanted == "hybrid" and share != "auto":
        return stream, ShareFinder(stream.batch_size, workers, routing=Routing("hybrid", share, "as set"))
    return stream, ShareFinder(stream.batch_size, workers, always_shares=wanted == "hybrid")


def _kinds(index: VideoIndex, split: str | None) -> dict[VideoKind, tuple[list[VideoRecord], int]]:
    """The kinds of video in `split`, each with a few examples and the number of its videos."""
    found: dict[VideoKind, tuple[list[VideoRecord], int]] = {}
    for examples, count in index.kinds(split, units=DALI_CODECS):
        before, others = found.get(VideoKind.of(examples[0]), ([], 0))
        found[VideoKind.of(examples[0])] = before + examples, others + count
    return found


@cache
def _tell_once(text: str) -> None:
    _log.warning(text)


def _by_pyav(stream: ClipStream, reason: str) -> tuple[ClipStream, ShareFinder]:
    return replace(stream, limits=None), ShareFinder(stream.batch_size, 0, routing=Routing("pyav", 0.0, reason))


def _why_not(examples: Sequence[VideoRecord], limits: DaliLimits, root: str, device: str) -> str:
    """Why DALI does not get a kind of video, in words; empty if it does.

    `examples` are some videos of the kind; the first one that can be read decides.
    """
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


# DALI's share of each trial batch. The first batch of a share warms up (sessions of NVDEC, memory); of the other two
# the faster one counts.
_TRIALS = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
_UNTIL_KNOWN = 0.5  # DALI's share of the batches that are planned before the last trial has been measured
_WORTH_IT = 0.95  # one decoder alone is used if it reaches this share of the speed of both together


@dataclass(frozen=True)
class Routing:
    """Who decodes the clips, and why.

    `decoder` is pyav, dali or hybrid. `share` is the share of the clips that DALI gets, of those that it can decode.
    `reason` says why, with the measured speeds if there are any.
    """

    decoder: Literal["pyav", "dali", "hybrid"]
    share: float
    reason: str

    def __str__(self) -> str:
        share = f", {100 * self.share:.0f} % of it by DALI" if self.decoder == "hybrid" else ""
        return f"decoder {self.decoder}{share} ({self.reason})"


@dataclass
class _Cost:
    """Seconds that processes took for a number of clips."""

    clips: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return self.seconds / self.clips if self.clips else 0.0


@dataclass
class ShareFinder:
    """Decides which share of each batch DALI decodes, from measurements of the first batches.

    `plan` gives the share of the next batch. `note_clips` and `note_trial` take the measurements; after the last trial
    `routing` is set. Both decoders are used if that is faster than either alone, or if `always_shares` is true. If
    `routing` is given from the start, nothing is measured.
    """

    batch_size: int
    workers: int
    always_shares: bool = False
    routing: Routing | None = None
    _planned: int = 0
    _trials: list[tuple[int, float]] = field(default_factory=list)  # clips that DALI decoded, seconds of DALI
    _by_dali: _Cost = field(default_factory=_Cost)  # of a worker that only remuxes a clip, for DALI to decode
    _by_pyav: _Cost = field(default_factory=_Cost)

    def plan(self) -> tuple[float, bool]:
        """(DALI's share of the next batch, whether it is a trial, which is timed with nothing else in DALI)."""
        if self.routing is not None:
            return self.routing.share, False
        self._planned += 1
        if self._planned <= len(_TRIALS):
            return _TRIALS[self._planned - 1], True
        return _UNTIL_KNOWN, False

    def forget_planned(self) -> None:
        """Forget the trials that were planned but not measured, because the epoch was left before."""
        self._planned = len(self._trials)

    def note_clips(self, clips: int, seconds: float, *, encoded: bool) -> None:
        """Note that a worker took `seconds` for `clips`, to remux them for DALI (`encoded`) or to decode them."""
        cost = self._by_dali if encoded else self._by_pyav
        cost.clips += clips
        cost.seconds += seconds

    def note_trial(self, encoded: int, seconds: float) -> Routing | None:
        """Note that DALI took `seconds` for a trial batch in which it decoded `encoded` clips.

        Trials must be noted in the order in which they were planned. Returns the routing once it is decided.
        """
        self._trials.append((encoded, seconds))
        if len(self._trials) == len(_TRIALS):
            self.routing = self._choose()
        return self.routing

    def _choose(self) -> Routing:
        """The fastest routing by the measurements."""
        most = max(encoded for encoded, _ in self._trials)
        whole = min(seconds for _, seconds in self._trials[1:3])
        base = min(seconds for _, seconds in self._trials[4:6])
        each = max(0.0, whole - base) / max(1, most)
        workers = max(1, self.workers)

        def rate(clips: int) -> float:
            """The expected clips a second if DALI decodes `clips` of each batch."""
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
    """Whether DALI decodes the clip in `row` of a batch. Its rows are spread evenly and are the same in every batch."""
    return int((row + 1) * share + 1e-9) > int(row * share + 1e-9)

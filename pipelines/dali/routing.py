"""Decides which clips DALI decodes and which ones PyAV decodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from pipelines.dali.decoder_check import wrong_frames
from pipelines.dali.decoding_memory import bytes_for_batch
from pipelines.dali.share_finder import Routing, ShareFinder
from pipelines.dali.versions import cpu_video_codecs
from pipelines.dali_limits import DaliLimits, VideoKind, is_cut_from_units
from pipelines.errors import R3DFastError
from pipelines.machine.cpus import usable_cpus
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


def choose_decoder(
    stream: ClipStream, index: VideoIndex, workers: int, threads: int | Literal["auto"] = "auto"
) -> tuple[ClipStream, ShareFinder]:
    """(`stream` with the limits of DALI filled in, the finder of the share of clips that DALI decodes).

    `finder.routing` says which decoder is used; it is None until the first batches have measured that. DALI gets a kind
    of video only if it gave the right frames of one example of it (pipelines/dali/decoder_check.py).
    """
    wanted, share = stream.decoder, stream.dali_share
    cpus = usable_cpus() if stream.device == "cpu" else max(1, workers)

    def by_pyav(reason: str) -> tuple[ClipStream, ShareFinder]:
        counts = thread_counts(threads, None, cpus)
        finder = ShareFinder(stream.batch_size, 0, routing=Routing("pyav", 0.0, reason), threads=counts)
        return replace(stream, limits=None), finder

    if wanted == "pyav":
        return by_pyav("as set")
    if wanted == "auto" and stream.device == "cpu":
        return by_pyav("no GPU")
    if not stream.train and (wanted == "auto" or (wanted == "hybrid" and share == "auto")):
        return by_pyav("evaluation does not depend on measurements")
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
        return by_pyav("DALI decodes none of these videos here")
    counts = thread_counts(threads, limits, cpus)
    limits = replace(limits, exact=frozenset(exact), batch_bytes=_bytes_for_batch(limits, exact, counts, stream.device))
    stream = replace(stream, limits=limits)
    routing = None
    if wanted == "dali":
        routing = Routing("dali", 1.0, "as set")
    elif share != "auto":
        routing = Routing("hybrid", share, "as set")
    return stream, ShareFinder(
        stream.batch_size, workers, always_shares=wanted == "hybrid", routing=routing,
        threads=counts, repeats=stream.repeats,
    )  # fmt: skip


def thread_counts(threads: int | Literal["auto"], limits: DaliLimits | None, cpus: int) -> tuple[int, ...]:
    """The numbers of DALI's threads to try: that which is set, or for NVDEC twice and once the number of its engines.

    A thread keeps one session of NVDEC busy, and waits for each picture. With two for each engine, no engine waits for
    a thread; with one, fewer threads wait for an engine. Where NVDEC decodes nothing, `cpus` is the number.
    """
    if threads != "auto":
        return (threads,)
    engines = max((caps.engines for caps in (limits.caps if limits else None) or ()), default=0)
    return (2 * engines, engines) if engines else (cpus,)


def _bytes_for_batch(limits: DaliLimits, kinds: Iterable[VideoKind], threads: Sequence[int], device: str) -> int | None:
    """The `batch_bytes` of `limits` for videos of `kinds`, with the most of `threads`; None on the CPU."""
    number = device_number(device)
    if number is None:
        return None
    codecs = {kind.codec for kind in kinds}
    taken = [size for size in limits.sizes if size[0] in codecs]
    if limits.whole_units:
        taken = [size for size in taken if not is_cut_from_units(*size)]
    return bytes_for_batch(number, taken, max(threads))


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

"""Who decodes which video: what DALI's decoder takes on a device, and what is left to PyAV."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pipelines.dali.decoder_check import wrong_frames
from pipelines.dali.share import Routing, ShareFinder
from pipelines.dali.versions import cpu_video_codecs
from pipelines.errors import R3DFastError
from pipelines.machine.device import device_number
from pipelines.machine.nvidia import DALI_CODECS, DecoderCaps, can_decode, probe_decoder
from pipelines.video.bitstream import parse_video_object_layer
from pipelines.video.record import VideoRecord

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex
    from pipelines.workers.clip_source import ClipStream

_log = logging.getLogger(__name__)
_PIX_FMT = re.compile(r"yuvj?(420|422|444)p(9|10|12|14|16)?(?:le|be)?")
# Profiles that NVDEC has no decoder for (NVDEC application note: baseline, main and high; main, main 10 and range
# extensions). Of MPEG-4, global motion compensation is named nowhere.
_H264_REFUSED = {44: "CAVLC 4:4:4", 83: "scalable", 86: "scalable", 88: "extended", 118: "multiview", 128: "stereo"}
_HEVC_TAKEN = {1, 2, 3, 4}
_MPEG4_TAKEN = {0, 1, 17}  # simple and advanced simple; 0: XviD and others leave it out


class Kind(NamedTuple):
    """What videos have in common that a decoder treats alike."""

    codec: str
    pix_fmt: str
    note: str

    @classmethod
    def of(cls, record: VideoRecord) -> Kind:
        """The kind of a video."""
        return cls(record.codec, record.pix_fmt, record.note)

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)


@dataclass(frozen=True)
class DaliLimits:
    """What DALI decodes on a device: `codecs`, on a GPU within the `caps` of its NVDEC.

    `exact`: the kinds whose frames were found to be the right ones, None where nobody has looked. `sizes`: (codec,
    width, height) in px of the videos that share the GPU.
    """

    codecs: frozenset[str] = frozenset()
    caps: tuple[DecoderCaps, ...] | None = None
    exact: frozenset[Kind] | None = None
    sizes: frozenset[tuple[str, int, int]] = frozenset()

    def refuses(self, record: VideoRecord) -> str:
        """Why a video is left to PyAV, in words; empty if DALI decodes it."""
        if record.codec not in self.codecs:
            return f"DALI has no decoder for {record.codec} here"
        if self.exact is not None and Kind.of(record) not in self.exact:
            return "other frames than PyAV's"
        if self.caps is None:
            return ""
        sampled = _PIX_FMT.fullmatch(record.pix_fmt)
        if not sampled:
            return f"pixel format {record.pix_fmt}"
        chroma, bit_depth = ":".join(sampled[1]), int(sampled[2] or 8)
        if chroma != "4:2:0":
            return f"DALI has no {chroma} on a GPU"
        if self._takes_anothers_session(record):
            return "its size and another video's are coded alike and shown otherwise"
        return refused_profile(record) or can_decode(
            self.caps, record.codec, bit_depth, chroma, record.width, record.height
        )

    def _takes_anothers_session(self, record: VideoRecord) -> bool:
        """Whether DALI would decode a cropped video in an NVDEC session that was made for an uncropped one.

        It keeps sessions by the size that is shown and looks them up by the size that is coded, and a session's height
        decides where the colours lie (DALI, frames_decoder_gpu.cc, NVDECCache).
        """
        unit = DALI_CODECS[record.codec]
        width, height = (-(-side // unit) * unit for side in (record.width, record.height))
        return height != record.height and (record.codec, width, height) in self.sizes


def refused_profile(record: VideoRecord) -> str:
    """The profile of a video that NVDEC does not take, in words; empty if it takes it or its headers don't say."""
    header = record.extradata
    if record.codec == "mpeg4":
        layer = parse_video_object_layer(header)
        if layer is not None and layer.sprites:
            return "global motion compensation"
        if layer is not None and layer.object_type not in _MPEG4_TAKEN:
            return f"MPEG-4 video object type {layer.object_type}"
    elif record.codec == "h264":
        profile = _h264_profile(header)
        if profile in _H264_REFUSED:
            return f"H.264 {_H264_REFUSED[profile]} profile"
    elif record.codec == "hevc" and len(header) > 1 and header[0] == 1:  # hvcC, ISO/IEC 14496-15, 8.3.3.1
        profile = header[1] & 31
        if profile and profile not in _HEVC_TAKEN:
            return f"HEVC profile {profile}"
    return ""


def _h264_profile(header: bytes) -> int:
    """`profile_idc` of an avcC box or of the first sequence parameter set in a byte stream, 0 where there is none."""
    if len(header) > 3 and header[0] == 1:
        return header[1]
    at = header.find(b"\0\0\1")
    while 0 <= at < len(header) - 4:
        if header[at + 3] & 31 == 7:
            return header[at + 4]
        at = header.find(b"\0\0\1", at + 3)
    return 0


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


def settle(stream: ClipStream, index: VideoIndex, workers: int) -> tuple[ClipStream, ShareFinder]:
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
            refused.append(f"{count} videos ({Kind.of(examples[0])}): {reason}")
        else:
            exact.add(Kind.of(examples[0]))
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

"""Which videos DALI can decode on a device, by codec, profile, pixel format and size. PyAV decodes all others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.bitstreams.nal_units import nal_units, unit_type
from pipelines.machine.nvdec import DALI_CODECS, DecoderCaps, refusal_of
from pipelines.video.record import VideoRecord

_PIX_FMT = re.compile(r"yuvj?(420|422|444)p(9|10|12|14|16)?(?:le|be)?")


# Profiles by their numbers in the header. NVDEC decodes baseline, main and high of H.264, and main, main 10 and range
# extensions of HEVC (NVDEC application note). For MPEG-4 nothing says that it decodes global motion compensation.
_H264_REFUSED = {44: "CAVLC 4:4:4", 83: "scalable", 86: "scalable", 88: "extended", 118: "multiview", 128: "stereo"}
_HEVC_TAKEN = {1, 2, 3, 4}
_MPEG4_TAKEN = {0, 1, 17}  # 1 simple, 17 advanced simple; XviD and others write 0


class VideoKind(NamedTuple):
    """A kind of video: all videos with the same codec, pixel format and note are decoded alike."""

    codec: str
    pix_fmt: str
    note: str

    @classmethod
    def of(cls, record: VideoRecord) -> VideoKind:
        """The kind of a video."""
        return cls(record.codec, record.pix_fmt, record.note)

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)


@dataclass(frozen=True)
class DaliLimits:
    """What DALI can decode on a device: the `codecs`, and on a GPU only within the `caps` of its NVDEC.

    `exact` are the kinds of video whose frames were checked and are the right ones; None if nothing was checked.
    `sizes` are the (codec, width, height) in px of all videos that are decoded on the GPU.
    """

    codecs: frozenset[str] = frozenset()
    caps: tuple[DecoderCaps, ...] | None = None
    exact: frozenset[VideoKind] | None = None
    sizes: frozenset[tuple[str, int, int]] = frozenset()

    def refuses(self, record: VideoRecord) -> str:
        """Why PyAV has to decode a video, in words; empty if DALI can."""
        if record.codec not in self.codecs:
            return f"DALI has no decoder for {record.codec} here"
        if self.exact is not None and VideoKind.of(record) not in self.exact:
            return "DALI gives other frames than PyAV"
        if self.caps is None:
            return ""
        sampled = _PIX_FMT.fullmatch(record.pix_fmt)
        if not sampled:
            return f"DALI does not know the pixel format {record.pix_fmt}"
        chroma, bit_depth = ":".join(sampled[1]), int(sampled[2] or 8)
        if chroma != "4:2:0":
            return f"DALI decodes no {chroma} video on a GPU"
        if self._takes_anothers_session(record):
            return "DALI would confuse its size with that of another video, which is coded in the same size"
        return refused_profile(record) or refusal_of(
            self.caps, record.codec, bit_depth, chroma, record.width, record.height
        )

    def _takes_anothers_session(self, record: VideoRecord) -> bool:
        """Whether DALI might decode this video in the NVDEC session of a video of another height, with wrong colours.

        The coded size of a video is its shown size rounded up to whole blocks. DALI stores a session under the shown
        size of its video, but looks for one by the coded size. So a video with rows that are not shown can get the
        session of a video that shows all of them. The height of the session decides where in memory the colours are
        (DALI, frames_decoder_gpu.cc, NVDECCache).
        """
        unit = DALI_CODECS[record.codec]
        width, height = (-(-side // unit) * unit for side in (record.width, record.height))
        return height != record.height and (record.codec, width, height) in self.sizes


def refused_profile(record: VideoRecord) -> str:
    """The profile of the video if NVDEC can't decode it, in words; empty if it can, or the headers don't say."""
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
    """`profile_idc` of an avcC box, or of the first sequence parameter set in a byte stream; 0 if there is none."""
    if len(header) > 3 and header[0] == 1:
        return header[1]
    parameter_sets = (unit for unit in nal_units(header, 0) if unit_type("h264", unit) == 7 and len(unit) > 1)
    return next((unit[1] for unit in parameter_sets), 0)

"""What DALI's decoder takes on a device, by codec, profile, pixel format and size; what it refuses PyAV decodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.machine.nvdec import DALI_CODECS, DecoderCaps, can_decode
from pipelines.video.bitstream import parse_video_object_layer
from pipelines.video.nal_units import nal_units, unit_type
from pipelines.video.record import VideoRecord

_PIX_FMT = re.compile(r"yuvj?(420|422|444)p(9|10|12|14|16)?(?:le|be)?")


# Profiles that NVDEC has no decoder for (NVDEC application note: baseline, main and high; main, main 10 and range
# extensions). Of MPEG-4, global motion compensation is named nowhere.
_H264_REFUSED = {44: "CAVLC 4:4:4", 83: "scalable", 86: "scalable", 88: "extended", 118: "multiview", 128: "stereo"}
_HEVC_TAKEN = {1, 2, 3, 4}
_MPEG4_TAKEN = {0, 1, 17}  # simple and advanced simple; 0: XviD and others leave it out


class VideoKind(NamedTuple):
    """What videos have in common that a decoder treats alike."""

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
    """What DALI decodes on a device: `codecs`, on a GPU within the `caps` of its NVDEC.

    `exact`: the kinds whose frames were found to be the right ones, None where nobody has looked. `sizes`: (codec,
    width, height) in px of the videos that share the GPU.
    """

    codecs: frozenset[str] = frozenset()
    caps: tuple[DecoderCaps, ...] | None = None
    exact: frozenset[VideoKind] | None = None
    sizes: frozenset[tuple[str, int, int]] = frozenset()

    def refuses(self, record: VideoRecord) -> str:
        """Why a video is left to PyAV, in words; empty if DALI decodes it."""
        if record.codec not in self.codecs:
            return f"DALI has no decoder for {record.codec} here"
        if self.exact is not None and VideoKind.of(record) not in self.exact:
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
    parameter_sets = (unit for unit in nal_units(header, 0) if unit_type("h264", unit) == 7 and len(unit) > 1)
    return next((unit[1] for unit in parameter_sets), 0)

"""Which videos DALI can decode on a device, by codec, profile, colours and size. PyAV decodes all others.

How DALI makes RGB, on the CPU and on a GPU (dali/operators/video/frames_decoder_cpu.cc, color_space.cu): always by the
matrix of BT.601, whatever a file says. On a GPU the range is full only if the stream itself says so; tags of the
container, the small one of remuxer.py included, count for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.bitstreams.h264 import states_full_range
from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.bitstreams.nal_units import nal_units, unit_type
from pipelines.containers.file_checks import TRUNCATED
from pipelines.containers.notes import CONCEALED_ERRORS, DAMAGED, DAMAGED_PACKETS, INTERLACED
from pipelines.machine.nvdec import DALI_CODECS, DecoderCaps, refusal_of
from pipelines.video.record import VideoRecord

_PIX_FMT = re.compile(r"yuvj?(420|422|444)p(9|10|12|14|16)?(?:le|be)?")


# Profiles by their numbers in the header. NVDEC decodes baseline, main and high of H.264, and main, main 10 and range
# extensions of HEVC (NVDEC application note). For MPEG-4 nothing says that it decodes global motion compensation.
_H264_REFUSED = {44: "CAVLC 4:4:4", 83: "scalable", 86: "scalable", 88: "extended", 118: "multiview", 128: "stereo"}
_HEVC_TAKEN = {1, 2, 3, 4}
_MPEG4_TAKEN = {0, 1, 17}  # 1 simple, 17 advanced simple; XviD and others write 0


# Values of ITU-T H.273, table 4, that PyAV converts by BT.601: RGB, unspecified, BT.470, SMPTE 170M.
_BT601 = {0, 2, 5, 6}
_MATRICES = {1: "BT.709", 4: "FCC", 7: "SMPTE 240M", 9: "BT.2020", 10: "BT.2020"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_FULL = "full range"
# Codecs in which FFmpeg takes the range of the container where the stream states none.
_RANGE_BY_CONTAINER = {"h264", "hevc", "mpeg4"}
# Notes of videos that another decoder may show otherwise: each hides damage in its own way, and DALI takes a field that
# is coded as a picture of its own for a frame.
_LEFT_TO_PYAV = (TRUNCATED, DAMAGED, DAMAGED_PACKETS, CONCEALED_ERRORS, INTERLACED)


class VideoKind(NamedTuple):
    """A kind of video: all videos with the same codec, pixel format and traits are decoded alike.

    The `traits` are those of its colours, the notes because of which PyAV decodes it, and that its size is no multiple
    of the coded unit, separated by commas.
    """

    codec: str
    pix_fmt: str
    traits: str = ""

    @classmethod
    def of(cls, record: VideoRecord) -> VideoKind:
        """The kind of a video."""
        traits = [note for note in _LEFT_TO_PYAV if note in record.notes]
        traits += [_matrix(record)] if _matrix(record) else []
        traits += [_FULL] if record.parameters.color_range == _FULL_RANGE else []
        traits += (
            [f"size no multiple of {DALI_CODECS[record.codec]} px"]
            if is_cut_from_units(record.codec, *record.stored_size)
            else []
        )
        return cls(record.codec, record.pix_fmt, ", ".join(traits))

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)


@dataclass(frozen=True)
class DaliLimits:
    """What DALI can decode on a device: the `codecs`, and on a GPU only within the `caps` of its NVDEC.

    `exact` are the kinds of video whose frames were checked and are the right ones; None if nothing was checked.
    `sizes` are the (codec, width, height) in px of all videos that are decoded on the GPU, as they are stored. With
    `whole_units` DALI gets no video of which it opens an NVDEC session for each clip. `batch_bytes` of GPU memory is
    what the clips of a batch that DALI decodes may take together; None if there is no limit.
    """

    codecs: frozenset[str] = frozenset()
    caps: tuple[DecoderCaps, ...] | None = None
    exact: frozenset[VideoKind] | None = None
    sizes: frozenset[tuple[str, int, int]] = frozenset()
    whole_units: bool = False
    batch_bytes: int | None = None

    def refuses(self, record: VideoRecord) -> str:
        """Why PyAV has to decode a video, in words; empty if DALI can."""
        if record.codec not in self.codecs:
            return f"DALI has no decoder for {record.codec} here"
        left = next((note for note in _LEFT_TO_PYAV if note in record.notes), "")
        if left:
            return f"DALI may show other frames than PyAV of what is {left}"
        if _matrix(record):
            return f"DALI converts colours by BT.601, but its are {_matrix(record)}"
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
        if self.whole_units and is_cut_from_units(record.codec, *record.stored_size):
            return "DALI would open an NVDEC session for each clip, as it never finds one again for such a size"
        if self._takes_anothers_session(record):
            return "DALI would confuse its size with that of another video, which is coded in the same size"
        if _only_container_says_full_range(record):
            return "DALI does not see that its colours have full range, since only its container says so"
        height, width = record.stored_size
        return refused_profile(record) or refusal_of(self.caps, record.codec, bit_depth, chroma, width, height)

    def _takes_anothers_session(self, record: VideoRecord) -> bool:
        """Whether DALI might decode this video in the NVDEC session of a video of another height, with wrong colours.

        The coded size of a video is the size of its frames rounded up to whole blocks. DALI stores a session under the
        size of the frames, but looks for one by the coded size. So a video whose frames are cut out of the coded rows
        can get the session of a video that has frames of all of them. The height of the session decides where in memory
        the colours are (DALI, frames_decoder_gpu.cc, NVDECCache).
        """
        unit = DALI_CODECS[record.codec]
        height, width = (-(-side // unit) * unit for side in record.stored_size)
        return height != record.stored_size[0] and (record.codec, width, height) in self.sizes


def is_cut_from_units(codec: str, *sides: int) -> bool:
    """Whether frames with these sides in px are cut out of larger coded pictures, where NVDEC may decode the codec.

    DALI never finds the NVDEC session of such a video again. It stores a session under the size of the frames and looks
    for one by the coded size, a multiple of the unit; so it opens one for each clip and keeps up to 100 of them
    (DALI 1.53 to 2.4, frames_decoder_gpu.cc, NVDECCache::GetDecoder).
    """
    unit = DALI_CODECS.get(codec, 1)
    return any(side % unit for side in sides)


def _matrix(record: VideoRecord) -> str:
    """The name of the matrix by which colours are converted; empty if it is BT.601's."""
    number = record.parameters.colorspace
    return "" if number in _BT601 else _MATRICES.get(number, f"matrix {number}")


def _only_container_says_full_range(record: VideoRecord) -> bool:
    """Whether colours have full range, and the stream is not known to say so. H.264's header tells."""
    if record.parameters.color_range != _FULL_RANGE or record.codec not in _RANGE_BY_CONTAINER:
        return False
    return record.codec != "h264" or not states_full_range(record.extradata)


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

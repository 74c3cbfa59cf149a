"""Asks the driver's libraries which videos the decoders of a GPU (NVDEC) can decode.

It also works without a GPU or a driver: nothing raises, the result says what is missing. Only ctypes is used, so DALI
need not be installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.machine.container import driver_remedy
from pipelines.machine.driver_library import (
    SUCCESS,
    LibraryFailed,
    LibraryNotThere,
    function_of,
    load_library,
    meaning_of,
    primary_context,
)
from pipelines.machine.nvidia import driver_version

# The numbers of cudaVideoCodec in cuviddec.h, by FFmpeg's name of the codec where it has one.
_CODECS = {
    "mpeg1video": 0,
    "mpeg2video": 1,
    "mpeg4": 2,
    "vc1": 3,
    "h264": 4,
    "mjpeg": 5,
    "h264_svc": 6,
    "h264_mvc": 7,
    "hevc": 8,
    "vp8": 9,
    "vp9": 10,
    "av1": 11,
}
# The codecs that DALI decodes by NVDEC, each with the size in px that coded pictures are a multiple of; the shown
# picture is cut out of the coded one. DALI's GPU decoder has no MJPEG, though its documentation lists it.
DALI_CODECS = {"mpeg4": 16, "h264": 16, "vp8": 16, "hevc": 8, "vp9": 8, "av1": 8}
_SAME_CODEC = {"wmv3": "vc1"}
_CHROMAS = {"4:2:0": 1, "4:2:2": 2, "4:4:4": 3}  # cudaVideoChromaFormat
_MANY_CHROMAS = {"h264", "hevc", "mjpeg", "vp9", "av1"}
_MANY_DEPTHS = {"h264": (8, 10), "hevc": (8, 10, 12), "vp9": (8, 10, 12), "av1": (8, 10, 12)}


class CuvidDecodeCaps(ctypes.Structure):
    """CUVIDDECODECAPS of cuviddec.h (NVIDIA Video Codec SDK). Newer headers have names for some reserved fields."""

    _fields_ = (
        ("eCodecType", ctypes.c_int),
        ("eChromaFormat", ctypes.c_int),
        ("nBitDepthMinus8", ctypes.c_uint),
        ("reserved1", ctypes.c_uint * 3),
        ("bIsSupported", ctypes.c_ubyte),
        ("nNumNVDECs", ctypes.c_ubyte),
        ("nOutputFormatMask", ctypes.c_ushort),
        ("nMaxWidth", ctypes.c_uint),
        ("nMaxHeight", ctypes.c_uint),
        ("nMaxMBCount", ctypes.c_uint),
        ("nMinWidth", ctypes.c_ushort),
        ("nMinHeight", ctypes.c_ushort),
        ("bIsHistogramSupported", ctypes.c_ubyte),
        ("nCounterBitDepth", ctypes.c_ubyte),
        ("nMaxHistogramBins", ctypes.c_ushort),
        ("reserved3", ctypes.c_uint * 10),
    )


@dataclass(frozen=True)
class DecoderCaps:
    """The sizes of video that NVDEC decodes in one codec, chroma format and bit depth.

    `engines` is the number of NVDECs that decode it, 0 if the driver does not say.
    """

    codec: str
    chroma: str
    bit_depth: int
    engines: int
    min_width_px: int
    min_height_px: int
    max_width_px: int
    max_height_px: int
    max_macroblocks: int


@dataclass(frozen=True)
class Decoder:
    """What the NVDEC of GPU number `device` can decode.

    `problem` says why it can decode nothing; it is empty if it can decode. `to_do` says what to do about the problem.
    """

    device: int
    caps: tuple[DecoderCaps, ...]
    problem: str
    to_do: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decoder:
        """The decoder whose fields were written as JSON."""
        return cls(**{**values, "caps": tuple(DecoderCaps(**caps) for caps in values["caps"])})


def probe_decoder(device: int = 0) -> Decoder:
    """What the NVDEC of GPU `device` can decode, or why it can't. Uses the primary context of the GPU for a moment."""
    try:
        cuda = load_library("libcuda.so.1")
        try:
            cuvid = load_library("libnvcuvid.so.1")
        except LibraryNotThere as failed:
            branch = driver_version().split(".")[0] or "VERSION"
            install = f"sudo apt-get install libnvidia-decode-{branch}   # Ubuntu; Debian: libnvcuvid1"
            return Decoder(device, (), failed.problem, driver_remedy(install))
        function_of(cuvid, ["cuvidGetDecoderCaps"])
        with primary_context(cuda, device):
            caps, refused = _all_caps(cuda, cuvid)
    except LibraryFailed as failed:
        return Decoder(device, (), failed.problem, failed.to_do)
    if caps:
        return Decoder(device, caps, "", "")
    return Decoder(device, (), refused or "NVDEC takes no codec: this GPU, or this slice of one, has no decoder", "")


def refusal_of(
    caps: Iterable[DecoderCaps], codec_name: str, bit_depth: int, chroma: str, width: int, height: int
) -> str:
    """Why NVDEC can't decode a video with these properties, in words; empty if it can.

    `codec_name` is FFmpeg's name of the codec; `chroma` is "4:2:0", "4:2:2" or "4:4:4"; `width` and `height` are in px.
    """
    codec = _SAME_CODEC.get(codec_name, codec_name)
    of_codec = [item for item in caps if item.codec == codec]
    if not of_codec:
        return f"no {codec_name} on this GPU's NVDEC"
    fit = next((item for item in of_codec if (item.chroma, item.bit_depth) == (chroma, bit_depth)), None)
    if fit is None:
        taken = ", ".join(f"{item.chroma} {item.bit_depth} bit" for item in of_codec)
        return f"{codec_name} of {chroma} {bit_depth} bit: NVDEC takes {taken}"
    if width < fit.min_width_px or height < fit.min_height_px:
        return f"{codec_name} of {width}x{height}: NVDEC takes {fit.min_width_px}x{fit.min_height_px} or more"
    if width > fit.max_width_px or height > fit.max_height_px:
        return f"{codec_name} of {width}x{height}: NVDEC takes up to {fit.max_width_px}x{fit.max_height_px}"
    macroblocks = -(-width // 16) * -(-height // 16)
    if macroblocks > fit.max_macroblocks:
        return f"{codec_name} of {width}x{height}, {macroblocks} macroblocks: NVDEC takes up to {fit.max_macroblocks}"
    return ""


def _all_caps(cuda: ctypes.CDLL, cuvid: ctypes.CDLL) -> tuple[tuple[DecoderCaps, ...], str]:
    """(everything that NVDEC supports, the first error that the driver returned or "")."""
    supported, first_error = [], ""
    for codec, number in _CODECS.items():
        for chroma, chroma_number in _CHROMAS.items():
            if chroma != "4:2:0" and codec not in _MANY_CHROMAS:
                continue
            for bit_depth in _MANY_DEPTHS.get(codec, (8,)):
                asked = CuvidDecodeCaps(number, chroma_number, bit_depth - 8)
                code = cuvid.cuvidGetDecoderCaps(ctypes.byref(asked))
                # A driver returns an error for a codec that is newer than the driver.
                if code != SUCCESS:
                    first_error = first_error or f"cuvidGetDecoderCaps: {meaning_of(cuda, code)}"
                elif asked.bIsSupported:
                    supported.append(_as_caps(codec, chroma, bit_depth, asked))
    return tuple(supported), first_error


def _as_caps(codec: str, chroma: str, bit_depth: int, answer: CuvidDecodeCaps) -> DecoderCaps:
    return DecoderCaps(
        codec, chroma, bit_depth, answer.nNumNVDECs, answer.nMinWidth, answer.nMinHeight,
        answer.nMaxWidth, answer.nMaxHeight, answer.nMaxMBCount,
    )  # fmt: skip

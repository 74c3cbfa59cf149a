"""Every encoder of the installed FFmpeg with each of its pixel formats, and videos written by them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.codec
import av.video.format
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a page for each video otherwise

FRAMES = 20
GOP = 6
# Sizes to try, the first that an encoder takes is its own: most take any; H.261 and RealVideo want CIF sizes, DV those
# of television, as does DNxHR; X-Face is 48 px.
SIZES = ((128, 96), (176, 144), (720, 576), (720, 480), (48, 48))
RATES = (Fraction(25), Fraction(30000, 1001))
# What makes an encoder fast, or lets it encode at all.
OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "bf": "2", "b-adapt": "0"},
    "libx264rgb": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=6:bframes=2:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "dnxhd": {"profile": "dnxhr_sq"},
    "cinepak": {"max_strips": "1"},
    "jpeg2000": {"pred": "1"},
    "mpeg2video": {"bf": "2"},
    "mpeg4": {"bf": "2"},
    "mpeg1video": {"bf": "2"},
}
DNXHR = {"yuv422p": "dnxhr_sq", "yuv422p10le": "dnxhr_hqx", "yuv444p10le": "dnxhr_444", "gbrp10le": "dnxhr_444"}
# No encoder of pictures into a file.
NO_FILES = {"wrapped_avframe": "frames in memory", "vnull": "writes nothing"}
_HARDWARE = 3 << 18  # AV_CODEC_CAP_HARDWARE, AV_CODEC_CAP_HYBRID: needs a GPU or a driver


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded: the encoder, its pixel format, the size (width, height) in px, the frame rate."""

    encoder: str
    pix_fmt: str
    size: tuple[int, int] = SIZES[0]
    rate: Fraction = RATES[0]

    @property
    def frames(self) -> int:
        """The number of frames of a video; fewer of a large size."""
        return FRAMES if self.size[0] * self.size[1] < 500_000 else 8


@dataclass(frozen=True)
class Additions:
    """What a video gets besides its pictures: colour tags, a turn (counter-clockwise degrees, mirrored), a start."""

    colours: Mapping[str, int] = field(default_factory=dict)
    degrees: int = 0
    mirrored: bool = False
    start: int = 0  # the time stamp of the first frame, in frames
    options: Mapping[str, str] = field(default_factory=dict)  # of the container


def encoders() -> list[str]:
    """The names of all video encoders that write files."""
    names = []
    for name in sorted(av.codecs_available):
        try:
            codec = av.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "video" and codec.name == name and not (name in NO_FILES or codec.capabilities & _HARDWARE):
            names.append(name)
    return names


def pixel_formats(encoder: str) -> list[str]:
    """The pixel formats that an encoder says it takes, its usual one first; all that there are if it does not say."""
    formats = av.Codec(encoder, "w").video_formats
    return [one.name for one in formats] if formats else ["yuv420p", *sorted(set(av.video.format.names) - {"yuv420p"})]


def encoding_of(encoder: str, pix_fmt: str) -> Encoding | None:
    """The encoding of this pixel format with the first size and rate that the encoder takes; None if it takes none."""
    for size in SIZES:
        for rate in RATES:
            encoding = Encoding(encoder, pix_fmt, size, rate)
            try:
                context = av.CodecContext.create(encoder, "w")
                assert isinstance(context, av.VideoCodecContext)
                _set(context, encoding)
                packets = [packet for frame in (*pictures(encoding, 3), None) for packet in context.encode(frame)]
            except (av.FFmpegError, ValueError, TypeError, OverflowError):
                continue
            if packets:
                return encoding
    return None


def write(path: Path, encoding: Encoding, muxer: str, additions: Additions | None = None) -> None:
    """Write a video. Raises av.FFmpegError or ValueError where encoder and container don't go together."""
    additions = additions or Additions()
    scheduler, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        with av.open(str(path), "w", format=muxer, options=dict(additions.options)) as target:
            stream = target.add_stream(encoding.encoder, rate=encoding.rate)
            assert isinstance(stream, av.VideoStream)
            _set(stream.codec_context, encoding)
            for name, value in additions.colours.items():
                setattr(stream.codec_context, name, value)
            if additions.degrees or additions.mirrored:
                stream.set_display_rotation(additions.degrees, hflip=additions.mirrored)
            target.start_encoding()
            for frame in pictures(encoding, encoding.frames):
                assert frame.pts is not None
                frame.pts += additions.start
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    finally:
        os.sched_setscheduler(0, scheduler, parameters)  # SVT-AV1 leaves a superuser's thread real-time


def pictures(encoding: Encoding, count: int) -> Iterator[av.VideoFrame]:
    """`count` frames in the pixel format of the encoding, all different from each other."""
    for number in range(count):
        shown = picture(number, encoding.size)
        if encoding.pix_fmt == "pal8":
            levels = (shown.astype(np.uint16) * 5 // 255).astype(np.uint8)  # 6 levels of each colour
            steps = np.mgrid[0:6, 0:6, 0:6].reshape(3, -1).T * 51
            palette = np.zeros((256, 4), np.uint8)
            palette[:, 3] = 255  # opaque; PyAV takes palettes as ARGB, in the order of the machine
            palette[:216, :3] = steps[:, ::-1]
            pixels = levels[..., 0] * 36 + levels[..., 1] * 6 + levels[..., 2]
            frame = av.VideoFrame.from_ndarray((pixels, palette), format="pal8")
        else:
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            if encoding.pix_fmt != "rgb24":
                frame = frame.reformat(format=encoding.pix_fmt, threads=1)
        frame.pts = number
        frame.time_base = 1 / encoding.rate
        yield frame


def picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Picture `number`, uint8 [H, W, 3], RGB: soft colours that move, a grey field, a bright bar that steps on.

    No two corners are alike, so that a turned picture is told from others.
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(size))
    shift = np.float32(number / 9)
    waves = [np.sin(3 * x + shift), np.cos(2.5 * y - shift), np.sin(2 * (x + y) - shift)]
    shown = (128 + 90 * np.stack(waves, axis=2)).astype(np.uint8)
    shown[height // 3 : height // 2, width // 3 : width // 2] = 130
    shown[: height // 8, : width // 6] = (220, 40, 40)
    left = (3 + 5 * number) * width // 128 % (width - width // 16)
    shown[-height // 6 :, left : left + width // 16] = (240, 240, 235)
    return shown


def _set(context: av.VideoCodecContext, encoding: Encoding) -> None:
    context.width, context.height = encoding.size
    context.pix_fmt = encoding.pix_fmt
    context.framerate = encoding.rate
    context.time_base = 1 / encoding.rate
    context.gop_size = GOP
    context.thread_count = 1  # so that the bytes are the same on every machine
    options = {"strict": "experimental", **OPTIONS.get(encoding.encoder, {})}
    if encoding.encoder == "dnxhd":
        options["profile"] = DNXHR.get(encoding.pix_fmt, "dnxhr_sq")
    context.options = options

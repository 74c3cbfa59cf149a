"""StreamParameters: what a container says of a video stream, so that a decoder without the container knows as much."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

# What PyAV lets one set on a decoder, beside its header (AVCodecParameters, libavcodec/codec_par.h).
_COPIED = (
    "codec_tag", "bits_per_coded_sample", "pix_fmt", "width", "height", "colorspace", "color_range", "color_primaries",
    "color_trc", "field_order",
)  # fmt: skip


_LONGEST_JSON = 800  # characters of the parameters of a stream; real ones have 300


@dataclass(frozen=True)
class StreamParameters:
    """The parameters of a stream beside its header (extradata), as FFmpeg reads them from the container.

    `codec_tag` are the four characters by which the container names the codec, empty if PyAV can't tell them. `width`
    and `height` in px are those that the container states. `colorspace`, `color_primaries` and `color_trc` are numbers
    of ITU-T H.273, `color_range` is FFmpeg's: 1 limited, 2 full. `aspect` is that of one pixel, 0/1 if unknown. With
    `changes`, packets come with new headers, palettes or the like, which only the container's own decoder gets.
    """

    codec_tag: str = ""
    bits_per_coded_sample: int = 0
    pix_fmt: str = ""
    width: int = 0
    height: int = 0
    colorspace: int = 2
    color_range: int = 0
    color_primaries: int = 2
    color_trc: int = 2
    field_order: int = 0
    aspect: tuple[int, int] = (0, 1)
    changes: bool = False

    @classmethod
    def of_context(cls, context: VideoCodecContext, *, changes: bool = False) -> StreamParameters:
        """The parameters of the decoder that FFmpeg made for a stream of an open file."""
        values: dict[str, Any] = {name: getattr(context, name) for name in _COPIED[1:]}
        values = {name: value for name, value in values.items() if value is not None}
        try:
            values["codec_tag"] = context.codec_tag
        except UnicodeDecodeError:  # PyAV takes them for ASCII
            changes = True
        aspect = context.sample_aspect_ratio or Fraction(0)
        return cls(**values, aspect=(aspect.numerator, aspect.denominator), changes=changes)

    def decoder(self, name: str, extradata: bytes) -> VideoCodecContext:
        """A decoder `name` for the stream with these parameters and this header; it runs in one thread."""
        context = av.CodecContext.create(name, "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata = extradata or None
        for field in _COPIED:
            value = getattr(self, field)
            if value != "":
                setattr(context, field, value)
        context.thread_type = "NONE"
        context.thread_count = 1  # the worker processes use the other CPUs already
        return context

    def to_json(self) -> str:
        """The parameters as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    @lru_cache(maxsize=256)  # most videos of a data set have the same
    def from_json(cls, text: str) -> StreamParameters:
        """The parameters whose `to_json` gave `text`. Raises ValueError if `text` is something else."""
        values = json.loads(text) if len(text) <= _LONGEST_JSON else None
        usual = vars(AS_PLAIN)
        if not isinstance(values, dict) or values.keys() != usual.keys() or not isinstance(values["aspect"], list):
            raise ValueError("not the parameters of a stream")
        values["aspect"] = aspect = tuple(values["aspect"])
        numbers = [value for value in values.values() if type(value) is int]
        if (
            any(type(value) is not type(usual[name]) for name, value in values.items())
            or len(aspect) != len(AS_PLAIN.aspect)
            or any(type(number) is not int or abs(number) >= 2**32 for number in (*aspect, *numbers))
        ):
            raise ValueError("not the parameters of a stream")
        return cls(**values)


AS_PLAIN = StreamParameters()  # of a stream of which the container says nothing

"""Cuts a box out of a decoded frame, scales it to a square by FFmpeg's scaler and converts it to RGB.

This is several times cheaper than a resize of the RGB box, since fewer pixels are converted, and plane by plane. The
filter becomes wider when it shrinks the picture, so it antialiases. Colour keeps half the resolution of luma. Compared
with a resize of the RGB box, crops of UCF-101 have a PSNR of 46 dB or more in luma, and 31 dB or more in RGB with a
median of 43 (tests/pipelines/video/test_scaler.py).
"""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # y, x, height, width in px
_KEPT = 32  # filter graphs that are kept, one for each size of frame and box; a data set of one frame size needs ten
_PLAIN = "yuv420p"
_ANY_TIME_BASE = Fraction(1, 25)


class BoxScaler:
    """Scales boxes of frames. It keeps the filter graphs of the latest sizes; use one in each process or thread."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[object, ...], _BoxGraph] = OrderedDict()

    def scale(self, frame: av.VideoFrame, box: Box, size_px: int) -> NDArray[np.uint8]:
        """The pixels of `box`, scaled to uint8 [size_px, size_px, 3], RGB. They stay valid as long as they are held."""
        y, x, height, width = box
        key = (
            frame.format.name,
            frame.width,
            frame.height,
            frame.colorspace,
            frame.color_range,
            height,
            width,
            size_px,
        )
        graph = self._graphs.pop(key, None) or _BoxGraph(frame, height, width, size_px)
        self._graphs[key] = graph
        if len(self._graphs) > _KEPT:
            self._graphs.popitem(last=False)
        return rgb_pixels(graph.run(frame, y, x))


class _BoxGraph:
    """The filter graph crop -> scale -> rgb24. The position of the crop can be changed, its size can't."""

    def __init__(self, frame: av.VideoFrame, height: int, width: int, size_px: int) -> None:
        self._graph = Graph()  # kept here because the filters do not keep their graph alive
        self._graph.threads = 1
        self._source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=_ANY_TIME_BASE
        )
        self._crop = self._graph.add("crop", f"{width}:{height}:0:0:exact=1")
        self._sink = self._graph.add("buffersink")
        chain: list[FilterContext] = [self._source, self._crop]
        chain.append(self._graph.add("scale", f"{size_px}:{size_px}:flags=bilinear"))
        if frame.format.name == _PLAIN:
            # Scale first and convert then: FFmpeg has fast code for each of these, but none for both at once.
            chain.append(self._graph.add("format", _PLAIN))
            chain.append(self._graph.add("scale", "flags=bilinear"))
        chain += [self._graph.add("format", "rgb24"), self._sink]
        for one, following in pairwise(chain):
            one.link_to(following)
        self._graph.configure()
        self._place = (0, 0)

    def run(self, frame: av.VideoFrame, y: int, x: int) -> av.VideoFrame:
        if (y, x) != self._place:
            self._crop.process_command("y", str(y))
            self._crop.process_command("x", str(x))
            self._place = (y, x)
        self._source.push(frame)
        scaled = self._sink.pull()
        assert isinstance(scaled, av.VideoFrame)
        return scaled


def rgb_pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels of an rgb24 frame, uint8 [H, W, 3], as a view of its memory, where rows are padded."""
    plane = frame.planes[0]
    flat: NDArray[np.uint8] = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # a buffer, untyped
    rows = flat.reshape(frame.height, plane.line_size)
    return rows[:, : frame.width * 3].reshape(frame.height, frame.width, 3)

"""The clips that `bench` makes for itself where it is given none: the format, sizes and key frames of UCF-101.

320x240 XviD-like MPEG-4 in AVI, 2 to 3 kB a frame, 29 to 300 frames, 8 class folders. Only decoding time matters, so
the pictures are moving layers of a texture with the spectrum of photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError
from pipelines.output.folders import make_once

CLASSES = 8
MARKER = ".r3d-bench.json"
FPS = 25
WIDTH, HEIGHT = 320, 240
FRAMES = (29, 300)  # UCF-101 has 29 to 1776 frames a video, 187 in the mean, few above 300
FRAMES_SKEW = 0.715  # makes 187 the mean
BIT_RATE = 500_000  # 2.5 kB a frame
GOP = 12
NO_GOP = 600  # the largest that the encoder takes: one key frame
TILE_PX = 640  # no less than twice the width

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class _Video:
    """One video to write: its number of frames, the most frames from a key frame to the next and B-frames in a row."""

    num_frames: int
    gop: int
    b_frames: int


def make_clips(
    root: Path, videos: int = 64, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write `videos` clips into `root` as CLASS/NNN.avi, in 8 classes in turn.

    Of 8 videos of a class, 5 have a key frame every 12 frames, 2 have only one key frame, and 1 has two. Every
    other one of the last three has B-frames. `progress(written, videos)` is called after each video.

    Equal arguments give equal files, and a `root` that has them is left as it is. If the process is killed, there is no
    `root`. Raises UsageError for `videos` < 8 (one a class), a negative seed or a `root` that holds anything else.
    """
    if videos < CLASSES or seed < 0:
        raise UsageError(f"videos {videos}, seed {seed}: expected at least {CLASSES} and 0")

    def write(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        tiles = [_draw_tile(rng) for _ in range(3)]
        for number, video in enumerate(_plan(videos, rng)):
            place = folder / f"class_{number % CLASSES}" / f"{number // CLASSES:03d}.avi"
            place.parent.mkdir(parents=True, exist_ok=True)
            # A stream of draws for each video, so that none depends on what another one drew.
            _write_video(place, video, _draw_frames(tiles, video.num_frames, np.random.default_rng([seed, number])))
            if progress is not None:
                progress(number + 1, videos)

    make_once(root, MARKER, {"version": 1, "videos": videos, "seed": seed}, "set of bench clips", write)


def _plan(videos: int, rng: np.random.Generator) -> Iterator[_Video]:
    """The videos in their order. Lengths are the quantiles of one distribution, shuffled: their mean is no accident."""
    low, high = FRAMES
    quantiles = (rng.permutation(videos) + 0.5) / videos
    for number, num_frames in enumerate((low + (high - low) * quantiles**FRAMES_SKEW).round().astype(int).tolist()):
        row, column = divmod(number, CLASSES)
        kind = (row + column) % 8  # each class has all kinds, and so has each row
        if kind < 5:
            yield _Video(num_frames, GOP, 0)
        elif kind < 7:
            yield _Video(num_frames, NO_GOP, row % 2)
        else:
            yield _Video(num_frames, (num_frames + 1) // 2, row % 2)


def _draw_tile(rng: np.random.Generator) -> Plane:
    """A periodic texture twice in each direction, so that any window of it is a slice: uint8 [2 TILE_PX, 2 TILE_PX]."""
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX))
    frequency[0, 0] = np.inf
    # Photographs have amplitudes of about 1 / frequency.
    layer = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE_PX, TILE_PX))) / frequency, s=(TILE_PX, TILE_PX))
    tile = np.clip(128 + 48 * layer / layer.std(), 16, 235).astype(np.uint8)
    return np.tile(tile, (2, 2))


def _draw_frames(tiles: list[Plane], num_frames: int, rng: np.random.Generator) -> Iterator[Plane]:
    """Frames as planes of YUV 4:2:0, uint8 [3/2 HEIGHT, WIDTH]: a background that pans, and things that move before it.

    Steps are whole pixels of a texture at twice the size: half a pixel of the video, as real motion falls between.
    """
    start = rng.integers(0, TILE_PX, (5, 2))
    speed = rng.uniform(-3.0, 3.0, (5, 2))
    sizes = rng.integers(40, 100, (3, 2))
    sway = rng.uniform(8.0, 20.0, (3, 2))
    for time in range(num_frames):
        frame = np.empty((HEIGHT * 3 // 2, WIDTH), np.uint8)
        luma, chroma = frame[:HEIGHT], frame[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
        at = (start + speed * time).astype(int)
        luma[:] = _window(tiles[0], at[0], HEIGHT, WIDTH)
        chroma[0] = _window(tiles[1], at[0] // 2, HEIGHT // 2, WIDTH // 2) // 4 + 96
        chroma[1] = _window(tiles[2], at[0] // 2, HEIGHT // 2, WIDTH // 2) // 4 + 96
        for thing in range(3):
            height, width = sizes[thing]
            turn = np.sin(time / sway[thing])
            y, x = ((0.5 + 0.5 * turn) * (HEIGHT - height, WIDTH - width)).astype(int) // 2 * 2
            luma[y : y + height, x : x + width] = _window(tiles[1 + thing % 2], at[2 + thing], height, width)
        yield frame


def _window(tile: Plane, corner: NDArray[np.int64], height: int, width: int) -> Plane:
    y, x = (corner % TILE_PX).tolist()
    return tile[y : y + 2 * height : 2, x : x + 2 * width : 2]


def _write_video(path: Path, video: _Video, frames: Iterator[Plane]) -> None:
    with av.open(str(path), "w", format="avi") as container:
        # The threshold keeps fast motion from being taken for a scene cut, which would add key frames.
        options = {"sc_threshold": "1000000000", "vtag": "XVID"}
        stream = container.add_stream("mpeg4", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BIT_RATE
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = video.gop, video.b_frames, 1
        for number, planes in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

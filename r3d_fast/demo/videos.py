"""Generates the demo's data set, in which only the motion tells the class.

Every video shows a random smooth texture that moves in one of eight ways. Colours, texture, orientation and scale of
the middle frame are drawn from the same distributions for all classes, so a model that looks at single frames is not
better than chance (1 in 8).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError
from pipelines.output.folders import make_once

CLASSES = ("left", "right", "up", "down", "zoom_in", "zoom_out", "rotate_left", "rotate_right")
SPLITS = ("train", "test")
MARKER = ".r3d-demo.json"
FPS = 25
TILE_PX = 256  # side of the periodic texture; at usual sizes, a frame shows less than that
# Direction (x, y) in which the content moves; y points down.
SHIFT = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
ZOOM = {"zoom_in": 1.0, "zoom_out": -1.0}
TURN = {"rotate_left": -1.0, "rotate_right": 1.0}  # counter-clockwise is negative, because y points down
SPEED_PX = (1.5, 3.0)  # lowest and highest speed, in pixels per frame
# Distance from the centre, in pixels, at which turning and zooming move the content by the speed. For turning it is
# about the mean distance in a 72 px frame. It is larger for zooming, because otherwise a frame would show only a few
# blobs after a second.
TURN_RADIUS_PX = 27.0
ZOOM_RADIUS_PX = 40.0

Frames = NDArray[np.uint8]


def make_demo_dataset(
    root: Path,
    *,
    videos_per_class: int = 24,
    test_per_class: int = 6,
    size: tuple[int, int] = (72, 72),
    num_frames: int = 24,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the data set into the folder `root`, as train/CLASS/NNN.avi and test/CLASS/NNN.avi.

    There are `videos_per_class` training videos and `test_per_class` test videos of each class. `size` is (width,
    height) in pixels. `progress` is called with the numbers of videos written and of all videos. Equal arguments give
    equal videos. If `root` already has the data set of the same arguments, nothing is written; if the process is
    killed, `root` does not exist. Raises UsageError for an argument out of range, or if `root` contains anything else.
    """
    given = {"videos_per_class": videos_per_class, "test_per_class": test_per_class, "num_frames": num_frames}
    for name, value, least in zip((*given, "seed"), (*given.values(), seed), (1, 1, 2, 0), strict=True):
        if value < least:
            raise UsageError(f"{name} {value}: expected at least {least}")
    if any(side % 2 or not 16 <= side <= 1024 for side in size):
        raise UsageError(f"size {size[0]}x{size[1]}: expected even numbers from 16 to 1024")
    counts = {"train": videos_per_class, "test": test_per_class}
    arguments = {"version": 1, **counts, "size": size, "num_frames": num_frames, "seed": seed}
    make_once(
        root, MARKER, arguments, "demo data set",
        lambda folder: _write_all(folder, counts, size, num_frames, seed, progress),
    )  # fmt: skip


def render_clip(name: str, *, size: tuple[int, int], num_frames: int, rng: np.random.Generator) -> Frames:
    """A random video of class `name`: uint8 [T, H, W, 3], RGB; `size` is (width, height) in pixels."""
    texture = _draw_texture(rng)
    speed = rng.uniform(*SPEED_PX)
    angle = rng.uniform(0.0, 2 * np.pi)
    scale = np.exp(rng.uniform(np.log(0.75), np.log(1.35)))
    phase = rng.uniform(0.0, TILE_PX, 2)

    # Time is 0 in the middle frame, so that scale and angle have the same distribution in every class there.
    time = (np.arange(num_frames) - num_frames // 2)[:, None, None]
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float64)
    x, y = x - (size[0] - 1) / 2, y - (size[1] - 1) / 2
    shift_x, shift_y = SHIFT.get(name, (0.0, 0.0))
    turned = angle - TURN.get(name, 0.0) * speed / TURN_RADIUS_PX * time
    scaled = scale * np.exp(-ZOOM.get(name, 0.0) * speed / ZOOM_RADIUS_PX * time)
    # To move the content to the right, look it up further to the left in each frame.
    x, y = (x - shift_x * speed * time) * scaled, (y - shift_y * speed * time) * scaled
    cos, sin = np.cos(turned), np.sin(turned)
    return _sample(texture, cos * x - sin * y + phase[0], sin * x + cos * y + phase[1])


def _draw_texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random, smooth, periodic texture: float32 [TILE_PX, TILE_PX, 3], RGB 0..255."""
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX))
    wavelength_px = rng.uniform(18.0, 28.0)
    # Keep a band around one wavelength. Coarser structures would hide the motion. Finer ones would alias when zooming
    # out, or move by more than half a wave between two frames, which looks like the opposite motion.
    band = np.exp(-(((frequency * wavelength_px - 1.0) / 0.35) ** 2))
    layers = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((2, TILE_PX, TILE_PX))) * band, s=(TILE_PX, TILE_PX))
    layers /= layers.std(axis=(1, 2), keepdims=True)
    colours = rng.standard_normal((2, 3))
    colours *= rng.uniform(25.0, 45.0) / np.linalg.norm(colours, axis=1, keepdims=True)
    base = rng.uniform(80.0, 176.0, 3)
    # Every texture gets light and dark parts, because the codec blurs differences in hue alone.
    texture = base + np.tensordot(layers, colours, axes=(0, 0)) + 20.0 * layers[0][..., None]
    clipped: NDArray[np.float32] = np.clip(texture, 0.0, 255.0).astype(np.float32)
    return clipped


def _sample(texture: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> Frames:
    """`texture` at the points (x, y), interpolated bilinearly and repeated beyond its edges: uint8 [T, H, W, 3]."""
    x, y = np.broadcast_arrays(x, y)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share = (x - left).astype(np.float32)[..., None]
    below_share = (y - top).astype(np.float32)[..., None]
    x0, x1, y0, y1 = left % TILE_PX, (left + 1) % TILE_PX, top % TILE_PX * TILE_PX, (top + 1) % TILE_PX * TILE_PX
    pixels = texture.reshape(-1, 3)
    above = pixels[y0 + x0] * (1 - right_share) + pixels[y0 + x1] * right_share
    below = pixels[y1 + x0] * (1 - right_share) + pixels[y1 + x1] * right_share
    mixed: NDArray[np.float32] = above * (1 - below_share) + below * below_share
    return (mixed + 0.5).astype(np.uint8)


def _write_all(
    root: Path,
    counts: dict[str, int],
    size: tuple[int, int],
    num_frames: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    total, done = len(CLASSES) * sum(counts.values()), 0
    for split_number, split in enumerate(SPLITS):
        for class_number, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(counts[split]):
                # Each video has a seed of its own, so that asking for more videos does not change the first ones.
                rng = np.random.default_rng([seed, split_number, class_number, number])
                clip = render_clip(name, size=size, num_frames=num_frames, rng=rng)
                _write_video(folder / f"{number:03d}.avi", clip)
                done += 1
                if progress is not None:
                    progress(done, total)


def _write_video(path: Path, clip: Frames) -> None:
    """Write an AVI like those of UCF-101: MPEG-4 part 2, a key frame every 12 frames, single B-frames, 25 frames/s."""
    with av.open(str(path), "w", format="avi") as container:
        # The threshold keeps the encoder from taking fast motion for a scene cut, which would add a key frame.
        stream = container.add_stream("mpeg4", rate=FPS, options={"sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt = clip.shape[2], clip.shape[1], "yuv420p"
        stream.bit_rate = 600_000
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = 1
        stream.codec_context.thread_count = 1
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

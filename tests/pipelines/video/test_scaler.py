from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from clips import write_stamped_video
from numpy.typing import NDArray
from resizing import triangle

from pipelines.index.video_index import VideoIndex
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.decoder import Cut, FrameReader
from pipelines.video.scaler import Box, BoxScaler, rgb_pixels


def frames_of(path: Path, count: int = 3) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return [frame for frame, _ in zip(container.decode(video=0), range(count), strict=False)]


def resized(frame: av.VideoFrame, box: Box, size_px: int) -> NDArray[np.float64]:
    """The RGB box, resized with antialiasing by plain NumPy, [S, S, 3]."""
    y, x, h, w = box
    pixels = frame.to_ndarray(format="rgb24")[y : y + h, x : x + w].astype(float)
    return np.einsum("ih,hwc,jw->ijc", triangle(h, size_px), pixels, triangle(w, size_px), optimize=True)


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stamped_video(tmp_path_factory.mktemp("scaling") / "a.avi", size=(160, 128), num_frames=3)


def grey(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(array.astype(float) @ np.array([0.299, 0.587, 0.114]))


@pytest.mark.parametrize(
    "box",
    [(0, 0, 128, 128), (0, 0, 128, 160), (20, 31, 96, 101), (17, 3, 101, 97), (64, 90, 60, 70), (108, 140, 20, 20)],
    ids=str,
)
@pytest.mark.parametrize("size_px", [56, 112, 130])
def test_box_is_cut_and_scaled_as_rgb_would_be(video: Path, box: Box, size_px: int) -> None:
    scaler = BoxScaler()
    for frame in frames_of(video):
        scaled = scaler.scale(frame, box, size_px)
        assert (scaled.shape, scaled.dtype) == ((size_px, size_px, 3), np.uint8)
        # Luma tells whether the place is right; chroma is coarser, and the texture is all saturated colour.
        assert psnr(grey(scaled), grey(resized(frame, box, size_px))) > 30


def test_box_one_pixel_off_would_be_noticed(video: Path) -> None:
    frame = frames_of(video)[0]
    scaled = grey(BoxScaler().scale(frame, (20, 30, 90, 90), 112))
    for off in ((20, 31, 90, 90), (21, 30, 90, 90), (20, 30, 92, 90)):
        assert psnr(scaled, grey(resized(frame, off, 112))) < 28


def test_scaler_that_has_seen_other_boxes_gives_the_same_pixels(video: Path) -> None:
    frame = frames_of(video)[1]
    used = BoxScaler()
    boxes = [(y, x, 60 + k, 64) for k in range(40) for y, x in ((0, 0), (3, 9), (0, 0))]  # more sizes than it keeps
    for box in boxes + boxes[::-1]:
        assert np.array_equal(used.scale(frame, box, 32), BoxScaler().scale(frame, box, 32))


def test_scaled_pixels_stay_while_they_are_held(video: Path) -> None:
    scaler = BoxScaler()
    first, second, _ = frames_of(video)
    held = scaler.scale(first, (0, 0, 100, 100), 64)
    copy = held.copy()
    for _ in range(20):
        scaler.scale(second, (0, 0, 100, 100), 64)
    del first
    assert np.array_equal(held, copy)


def test_rgb_pixels_are_those_of_the_frame(video: Path) -> None:
    frame = frames_of(video)[0].reformat(width=101, format="rgb24")
    assert np.array_equal(rgb_pixels(frame), frame.to_ndarray())


def filtered(frame: av.VideoFrame, name: str, arguments: str | None = None) -> av.VideoFrame:
    """The frame after one of FFmpeg's filters."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    chain = [source, graph.add(name, arguments), graph.add("buffersink")]
    for one, following in pairwise(chain):
        one.link_to(following)
    graph.configure()
    source.push(frame)
    result = chain[-1].pull()
    assert isinstance(result, av.VideoFrame)
    return result


def test_rgb_pixels_of_a_frame_that_is_stored_with_its_lowest_row_first(video: Path) -> None:
    frame = frames_of(video)[0].reformat(format="rgb24")
    turned = filtered(frame, "vflip")
    assert turned.planes[0].line_size < 0
    assert np.array_equal(rgb_pixels(turned), rgb_pixels(frame)[::-1])


def test_box_as_large_as_the_clip_is_not_scaled_at_all(video: Path) -> None:
    for pixel_format in ("rgb24", "bgr24", "yuv444p"):
        frame = frames_of(video)[0].reformat(format=pixel_format)
        y, x = 20, 31
        scaled = BoxScaler().scale(frame, (y, x, 96, 96), 96)
        assert np.array_equal(scaled, frame.to_ndarray(format="rgb24")[y : y + 96, x : x + 96])


def test_interlaced_frames_are_scaled_as_whole_pictures(video: Path) -> None:
    scaler = BoxScaler()
    for frame in frames_of(video):
        interlaced = filtered(frame, "setfield", "tff")
        assert interlaced.interlaced_frame
        for box in ((0, 0, 128, 128), (20, 31, 96, 101)):
            assert np.array_equal(scaler.scale(interlaced, box, 56), scaler.scale(frame, box, 56))
        assert interlaced.interlaced_frame


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p12le", "nv12", "p010le", "yuva422p10le"])
@pytest.mark.parametrize("x", range(4))
def test_colour_of_two_bytes_is_cut_between_samples(video: Path, pixel_format: str, x: int) -> None:
    """FFmpeg's crop halves the place of the cut in bytes, which hits the middle of a sample where x is odd."""
    frame = frames_of(video)[0].reformat(format=pixel_format)
    box = (5, 28 + x, 96, 96)
    assert psnr(BoxScaler().scale(frame, box, 56), resized(frame, box, 56)) > 25


@pytest.mark.real
def test_decoder_resize_of_real_clips_is_as_near_to_the_graphs_as_is_said(real_clips: Path, tmp_path: Path) -> None:
    """As scaler.py says: luma within 45 dB, RGB within 31 dB, over the crops of an epoch."""
    index = VideoIndex.build(real_clips / "UCF-101", index=tmp_path / "index", workers=0)
    spec = AugmentSpec()
    sampler = ClipSampler(index.columns(), ClipSpec(num_frames=2), spec, seed=0, train=True, shard=ShardSpec())
    reader, luma, rgb = FrameReader(), [], []
    for position in range(len(index)):
        plan = sampler.plan(0, position)
        out = np.empty((2, spec.size_px, spec.size_px, 3), np.uint8)
        h, w = plan.box[2:]
        raw = np.empty((2, h, w, 3), np.uint8)
        cuts = [Cut(plan.frames, plan.box, spec.size_px, out), Cut(plan.frames, plan.box, None, raw)]
        reader.fill(index[plan.video_id], cuts, root=str(index.root))
        rows, columns = triangle(h, spec.size_px), triangle(w, spec.size_px)
        exact = np.einsum("ih,thwc,jw->tijc", rows, raw.astype(float), columns, optimize=True)
        rgb.append(psnr(out, exact))
        luma.append(psnr(grey(out), grey(exact)))
    for name, found in (("RGB", rgb), ("luma", luma)):
        print(f"{name}: {min(found):.1f} to {max(found):.1f} dB, median {np.median(found):.1f}")
    assert min(rgb) > 31
    assert min(luma) > 45

"""The contact sheet shows the frames of each clip pixel by pixel, and its names do no harm to the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.sampler import ClipPlan
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.preview.contact_sheet import MOST_FRAMES, contact_sheet, legend, tile_side
from r3d_fast.preview.shown_clips import ShownClip


def clip(number: int = 0, side: int = 112, frames: int = 3, label: str = "a", path: str = "a/v.avi") -> ShownClip:
    pixels = np.random.default_rng(number).integers(0, 200, (frames, side, side, 3), np.uint8)
    whole = np.full((120, 160, 3), 128, np.uint8)
    plan = ClipPlan(number, 0, np.arange(frames, dtype=np.int32), (0, 40, 120, 120), (side, side), (0, 0), mirror=False)
    return ShownClip(label, path, pixels, plan, 40, (120, 160), whole)


def drawn(clips: list[ShownClip], title: str = "title") -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(clips, title))))


def places(sheet: NDArray[np.uint8], frame: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Where `frame` is in the sheet, pixel by pixel: (y, x) of its corners."""
    height, width, _ = frame.shape
    found = []
    for y, row in enumerate(sheet[: 1 - height]):
        x = row.tobytes().find(frame[0].tobytes())
        if x >= 0 and np.array_equal(sheet[y : y + height, x // 3 : x // 3 + width], frame):
            found.append((y, x // 3))
    return found


def test_every_frame_of_every_clip_is_there_in_its_row() -> None:
    clips = [clip(0), clip(1)]
    sheet = drawn(clips)
    corners = [[places(sheet, frame) for frame in one.frames] for one in clips]
    assert all(len(found) == 1 for row in corners for found in row)
    for row in corners:
        assert len({found[0][0] for found in row}) == 1
        assert [found[0][1] for found in row] == sorted(found[0][1] for found in row)
    assert corners[0][0][0][0] < corners[1][0][0][0]


@pytest.mark.parametrize(("side", "shown"), [(112, 112), (16, 112), (56, 112), (80, 80), (128, 128), (224, 112)])
def test_frames_are_shown_at_a_size_that_one_can_see(side: int, shown: int) -> None:
    assert tile_side(side) == shown
    text = legend(ClipSpec(), AugmentSpec(size_px=side))
    assert (f"(shown at {shown} px)" in text) == (side != shown)


def test_small_frames_grow_by_whole_pixels() -> None:
    small = clip(side=16)
    sheet = drawn([small])
    for frame in small.frames:
        assert len(places(sheet, frame.repeat(7, axis=0).repeat(7, axis=1))) == 1


def test_of_a_long_clip_some_frames_are_shown_and_it_is_said() -> None:
    long = clip(frames=64, side=112)
    sheet = drawn([long])
    shown = [number for number, frame in enumerate(long.frames) if places(sheet, frame)]
    assert len(shown) == MOST_FRAMES
    assert (shown[0], shown[-1]) == (0, 63)
    assert "64 frames (16 of them shown)" in legend(ClipSpec(num_frames=64), AugmentSpec())


def test_the_red_box_is_where_the_model_looks() -> None:
    """Of a frame of 160x120 px the model sees the right three quarters: the box ends at the right edge."""
    sheet = drawn([clip()]).astype(int)
    red = (sheet == (0xE0, 0, 0)).all(axis=2)
    columns = np.flatnonzero(red.any(axis=0))
    scale = 112 / 120
    assert columns[0] == 16 + round(40 * scale)
    assert columns[-1] == 16 + round(160 * scale) - 1


@pytest.mark.parametrize("name", ["x" * 5000, "\x1b[2J\n\u202e", "跳水 فيديو 🎬", "[red]%s{}", ""])
def test_any_name_is_drawn_within_the_sheet(name: str) -> None:
    sheet = drawn([clip(label=name, path=f"a/{name}.avi")])
    assert sheet.shape == drawn([clip()]).shape
    assert (sheet[:, -16:] == 255).all(), "the margin at the right stays white"


def test_a_clip_that_cant_be_read_is_a_row_like_others() -> None:
    one = clip()
    broken = ShownClip("a", "a/v.avi", one.frames, one.plan, 40, (120, 160), None, "gone")
    assert drawn([broken]).shape == drawn([one]).shape

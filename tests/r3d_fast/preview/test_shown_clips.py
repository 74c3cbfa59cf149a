"""Clips as pictures: the normalisation is undone exactly, and the facts beside a clip are those of its plan."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from pipelines.sampler import ClipPlan, Jitter
from pipelines.specs import AugmentSpec
from r3d_fast.preview.shown_clips import ShownClip, pixels_of, rows_to_show


def plan(video: int = 0, *, is_real: bool = True, **changes: Any) -> ClipPlan:
    values: dict[str, Any] = {"box": (10, 20, 90, 60), "resized": (30, 20), "window": (10, 0), "mirror": False}
    return ClipPlan(video, 0, np.array([3, 9], np.int32), is_real=is_real, **{**values, **changes})


def clip(plan: ClipPlan) -> ShownClip:
    return ShownClip("a", "a/v.avi", np.zeros((2, 20, 20, 3), np.uint8), plan, 40, (120, 160), None)


@pytest.mark.parametrize("value_max", [1, 255])
@pytest.mark.parametrize("layout", ["NCTHW", "NTHWC"])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_every_pixel_value_comes_back(value_max: Literal[1, 255], layout: Literal["NCTHW", "NTHWC"], kind: Any) -> None:
    spec = AugmentSpec(value_max=value_max, layout=layout, mean=(0.4, 0.5, 0.1), std=(0.2, 0.3, 0.4), size_px=16)
    pixels = np.stack([np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)] * 3, axis=-1)
    pixels[..., 1] = pixels[..., 0][..., ::-1]
    values = ((pixels * (value_max / 255) - spec.mean) / spec.std).astype(kind)
    if layout == "NCTHW":
        values = values.transpose(0, 4, 1, 2, 3)
    np.testing.assert_array_equal(pixels_of(values, spec), pixels)


def test_the_part_that_the_model_sees_is_in_pixels_of_the_frame() -> None:
    """A box of 60x90 px at (20, 10) becomes 20x30 px, of which the model sees the 20x20 px from y 10 on."""
    assert clip(plan()).seen == (40, 20, 60, 60)


def test_the_facts_name_what_was_done_and_nothing_else() -> None:
    assert clip(plan()).facts() == "frames 3 to 9 of 40 · crop 60x60 at x 20, y 40 of 160x120"
    changed = plan(mirror=True, jitter=Jitter(brightness=1.2, hue=-0.1))
    assert clip(changed).facts().endswith("of 160x120 · mirrored · brightness x1.20, hue -36°")


@pytest.mark.parametrize(
    ("videos", "most", "rows"),
    [
        ([5, 5, 5, 7, 7, 8], 3, [0, 3, 5]),  # one of each video
        ([1, 2, 3, 4, 5, 6, 7], 3, [0, 3, 6]),  # spread evenly
        ([5, 5, 5, 7], 3, [0, 2, 3]),  # too few videos: more of the same
        ([5], 8, [0]),
    ],
)
def test_the_rows_show_different_videos(videos: list[int], most: int, rows: list[int]) -> None:
    assert rows_to_show([plan(video) for video in videos], most) == rows


def test_padding_is_not_shown() -> None:
    assert rows_to_show([plan(1), plan(2), plan(2, is_real=False)], 8) == [0, 1]

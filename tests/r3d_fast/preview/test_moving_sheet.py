"""The moving sheet plays every frame of every clip, in order."""

from __future__ import annotations

import io

import av
import numpy as np

from pipelines.sampler import ClipPlan
from r3d_fast.preview.moving_sheet import write_moving_sheet
from r3d_fast.preview.shown_clips import ShownClip

LEVELS = (20, 90, 160, 230)


def clip(number: int) -> ShownClip:
    """A clip whose frames are grey, each of another level; clip `number` begins at another one."""
    levels = np.roll(LEVELS, -number)
    frames = np.ones((4, 56, 56, 3), np.uint8) * levels[:, None, None, None].astype(np.uint8)
    plan = ClipPlan(number, 0, np.arange(4, dtype=np.int32), (0, 0, 56, 56), (56, 56), (0, 0), mirror=False)
    return ShownClip(f"class {number}", "v.avi", frames, plan, 4, (56, 56), None)


def test_each_clip_plays_beside_the_others() -> None:
    file = io.BytesIO()
    write_moving_sheet(file, [clip(0), clip(1), clip(2)])
    file.seek(0)
    with av.open(file) as video:
        assert video.streams.video[0].average_rate == 8
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) == 16  # four times
    for time, picture in enumerate(pictures):
        for number, (y, x) in enumerate([(60, 60), (60, 180), (200, 60)]):
            assert abs(int(picture[y, x].mean()) - LEVELS[(time + number) % 4]) < 6
        assert picture[200, 180].mean() > 250, "there is no fourth clip"

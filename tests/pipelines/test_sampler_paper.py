"""The clips of Hara et al. 2018 (arXiv:1711.09577), as the code of the authors takes them.

tests/golden/windows.json says what that code gives, and where it is from.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from plans import GOLDEN, sampler, videos

from pipelines.draws import random_words
from pipelines.sampler import consecutive_frames, count_views, eval_geometry, train_box
from pipelines.specs import AugmentSpec, ClipSpec

THEIRS: dict[str, dict[str, Any]] = json.loads((GOLDEN.parent / "windows.json").read_text())
CLIP = ClipSpec(num_frames=16, sampling="consecutive", short="loop")
# As in configs/ucf101_r3d18_paper.yaml.
CROPS = AugmentSpec(
    scales=(1.0, 0.84089641525, 0.7071067811803, 0.5946035574935, 0.4999999999912), max_scale_step=0,
    positions="corners5", snap_px=0,
)  # fmt: skip
SIZES = sorted(
    {(9 * k, 16 * k) for k in range(1, 241)}
    | {(height, width) for height in range(2, 60) for width in range(2, 60)}
    | {(240, width) for width in range(180, 500)}
    | {(288, 352), (480, 640), (576, 720), (1080, 1920), (2160, 3840), (226, 400), (340, 256)}
)


def windows(num_frames: int, views: Any) -> list[list[int]]:
    """The frames of each clip in an evaluation."""
    made = sampler(videos(num_frames), CLIP.model_copy(update={"views": views}), train=False)
    return [made.plan(0, position).frames.tolist() for position in range(made.num_clips)]


def looped(start: int, count: int) -> list[int]:
    """16 frames: the `count` frames from `start` on, again and again."""
    return [start + i % count for i in range(16)]


@pytest.mark.parametrize("views", ["paper", "all"])
def test_windows_are_those_of_the_authors_code(views: str) -> None:
    for frames, theirs in THEIRS[views].items():
        # Their code for the paper has no window of a video of one frame; such a video is evaluated here all the same.
        assert windows(int(frames), views) == [looped(*window) for window in theirs or [(0, 1)]], frames
    assert len(THEIRS[views]) == 100


def test_paper_and_all_differ_in_a_last_window_of_one_frame_alone() -> None:
    for frames in range(1, 200):
        every, theirs = windows(frames, "all"), windows(frames, "paper")
        assert (every[:-1] if frames % 16 == 1 and frames > 1 else every) == theirs, frames


@pytest.mark.parametrize(("count", "stride"), [(16, 1), (8, 2), (5, 1), (64, 1), (1, 1), (4, 7), (1, 3)])
def test_windows_of_any_length_and_stride_begin_before_the_last_frame(count: int, stride: int) -> None:
    """The rule is range(1, F, T * stride), of frames counted from 1; the authors' code has no stride."""
    lengths = np.arange(1, 300)
    clip = ClipSpec(num_frames=count, sampling="consecutive", stride=stride, views="paper")
    for frames, views in zip(lengths.tolist(), count_views(lengths, clip).tolist(), strict=True):
        starts = [start - 1 for start in range(1, frames, count * stride)] or [0]
        shown = [consecutive_frames(frames, clip, None, view).tolist() for view in range(views)]
        assert [clip_frames[0] for clip_frames in shown] == starts, frames
        assert all(0 <= frame < frames for clip_frames in shown for frame in clip_frames), frames


def test_training_starts_without_reach_end_are_all_those_of_the_authors_and_no_other() -> None:
    clip = CLIP.model_copy(update={"reach_end": False})
    for frames, last in THEIRS["last_start"].items():
        words = [random_words(16, 3, draw) for draw in range(12 * (last + 1) + 40)]
        drawn = [consecutive_frames(int(frames), clip, word) for word in words]
        assert {int(clip_frames[0]) for clip_frames in drawn} == set(range(last + 1)), frames
        shown = min(16, int(frames))
        assert all((np.diff(clip_frames[:shown]) == 1).all() for clip_frames in drawn), frames
        assert max(int(clip_frames.max()) for clip_frames in drawn) == last + shown - 1, frames


@pytest.mark.parametrize(("count", "stride"), [(8, 3), (4, 1), (1, 1)])
def test_without_reach_end_only_the_last_start_is_left_out(count: int, stride: int) -> None:
    clip = ClipSpec(num_frames=count, sampling="consecutive", stride=stride)
    for room in range(6):
        frames = clip.span + room
        words = [random_words(count, 5, draw) for draw in range(150)]
        starts = [
            {int(consecutive_frames(frames, spec, word)[0]) for word in words}
            for spec in (clip, clip.model_copy(update={"reach_end": False}))
        ]
        assert starts == [set(range(room + 1)), set(range(max(1, room)))]


def test_reach_end_changes_nothing_of_an_evaluation_or_of_a_video_shorter_than_the_clip() -> None:
    clip = CLIP.model_copy(update={"reach_end": False, "views": 3})
    for frames in (3, 15, 16, 17, 90):
        for view in range(3):
            theirs = consecutive_frames(frames, clip, None, view)
            np.testing.assert_array_equal(
                theirs, consecutive_frames(frames, CLIP.model_copy(update={"views": 3}), None, view)
            )
    word = random_words(16, 0)
    np.testing.assert_array_equal(consecutive_frames(9, clip, word), consecutive_frames(9, CLIP, word))


def test_three_views_are_the_windows_by_which_the_authors_code_validates_or_one_frame_off() -> None:
    """Of 46 and from 48 frames on. A shorter video has more than three windows there, each at least a frame apart."""
    for frames, theirs in THEIRS["validation"].items():
        number = int(frames)
        if number < 46 or number == 47:
            assert len(theirs) > 3 or number in (1, 2, 3, 4), frames
            continue
        starts = [window[0] for window in windows(number, 3)]
        assert [count for _, count in theirs] == [16] * 3, frames
        off = 0 if number % 2 == 0 else 1
        assert [start for start, _ in theirs] == [starts[0], starts[1] - off, starts[2] - off], frames


def test_the_centre_of_an_evaluation_is_rounded_as_in_the_authors_code() -> None:
    """Their Scale and CenterCrop (spatial_transforms.py, both branches), of a short side of 112 px."""
    floored = 0
    for height, width in SIZES:
        for rows, columns in ((height, width), (width, height)):
            short = min(rows, columns)
            resized = int(112 * rows / short), int(112 * columns / short)
            top, left = (int(round((side - 112) / 2.0)) for side in resized)  # noqa: RUF046
            assert eval_geometry(rows, columns, AugmentSpec()) == (resized, (top, left), False)
            floored += (top, left) != ((resized[0] - 112) // 2, (resized[1] - 112) // 2)
    assert floored > 500  # so that rounding down would be noticed
    assert eval_geometry(240, 320, AugmentSpec())[1] == (0, 18)  # where the reference run crops
    assert eval_geometry(720, 1280, AugmentSpec()) == ((112, 199), (0, 44), False)
    assert eval_geometry(226, 400, AugmentSpec()) == ((112, 198), (0, 43), False)


def test_the_outer_crops_of_an_evaluation_touch_the_edges() -> None:
    for height, width in SIZES[::7]:
        three = [eval_geometry(height, width, AugmentSpec(eval_crops=3), crop) for crop in range(3)]
        (rows, columns), ends = three[0][0], (three[0][1], three[2][1])
        assert ends == ((0, 0), (rows - 112, columns - 112)) or height == width
        ten = [eval_geometry(height, width, AugmentSpec(eval_crops=10), crop)[1] for crop in range(4)]
        room = [side - 112 for side in eval_geometry(height, width, AugmentSpec(eval_crops=10))[0]]
        assert ten == [(0, 0), (0, room[1]), (room[0], 0), (room[0], room[1])]


def test_training_crops_are_within_a_pixel_of_the_authors() -> None:
    """Their MultiScaleCornerCrop (spatial_transforms.py, branch CVPR2018).

    Its central crop goes half the side, rounded down, to each side of the middle: a crop with an odd side becomes 1 px
    smaller. Corner crops are the same here, to the pixel.
    """
    smaller = 0
    for height, width in SIZES:
        scale, short = 1.0, min(height, width)
        for number in range(5):
            side = int(short * scale)
            scale *= 0.84089641525
            if side < 1:
                continue
            half = side // 2
            middle = (height // 2 - half, width // 2 - half, height // 2 + half, width // 2 + half)
            corners = [(y, x, y + side, x + side) for y in (0, height - side) for x in (0, width - side)]
            ours = [box(height, width, number, place) for place in range(5)]
            assert ours[:4] == corners, (height, width, number)
            assert max(abs(a - b) for a, b in zip(ours[4], middle, strict=True)) <= 1, (height, width, number)
            smaller += middle[2] - middle[0] == side - 1
    assert smaller > 1000


def box(height: int, width: int, size: int, place: int) -> tuple[int, int, int, int]:
    """The edges (top, left, bottom, right) in px of the training crop with the scale `size` at the position `place`."""
    words = np.array([(2 * size + 1) * 2**64 // 10, (2 * place + 1) * 2**64 // 10], np.uint64)  # middles of fifths
    y, x, h, w = train_box(height, width, CROPS, words)
    return y, x, y + h, x + w

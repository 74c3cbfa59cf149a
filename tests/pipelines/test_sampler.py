from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import GOLDEN, chi_square, sampler, videos

from pipelines.draws import below, random_words
from pipelines.sampler import consecutive_frames, count_views
from pipelines.specs import ClipSpec

# Draws


def test_words_differ_between_keys_and_not_between_calls() -> None:
    keys = [(s, e, p, kind) for s in (0, 1, 2**40) for e in (0, 1) for p in (0, 1) for kind in range(4)]
    first = {key: random_words(4, *key).tolist() for key in keys}
    assert len({tuple(words) for words in first.values()}) == len(keys)
    assert {key: random_words(4, *key).tolist() for key in keys} == first
    assert random_words(9, 5, 6, 7)[:4].tolist() == random_words(4, 5, 6, 7).tolist()
    assert random_words(1, 5).dtype == np.uint64


def test_below_scales_words_over_the_whole_range() -> None:
    top = np.uint64(2**64 - 1)
    words = np.array([0, 2**63 - 1, 2**63, top], np.uint64)
    assert below(words, 10).tolist() == [0, 4, 5, 9]
    assert below(words, 1).tolist() == [0, 0, 0, 0]
    assert below(np.array([top]), 40_000).tolist() == [39_999]


# Segments


def test_train_segments_take_one_frame_from_each_part_uniformly() -> None:
    part, count = 10, 16
    columns, clip = videos(part * count + 9), ClipSpec()  # the 9 frames left over are never taken
    drawn = np.array([sampler(columns, clip).plan(epoch, 0).frames for epoch in range(2000)])
    offsets = drawn - np.arange(count) * part
    assert offsets.min() == 0
    assert offsets.max() == part - 1
    for i in range(count):
        counts = np.bincount(offsets[:, i], minlength=part)
        assert chi_square(counts) < 30, (i, counts)  # 9 degrees of freedom: p < 0.0005 by chance
    # The parts are drawn one by one: two of them agree about as often as chance has it.
    for i in range(count - 1):
        assert 0.07 < (offsets[:, i] == offsets[:, i + 1]).mean() < 0.13


@pytest.mark.parametrize("num_frames", [16, 17, 31])
def test_train_segments_of_one_frame_leave_no_choice(num_frames: int) -> None:
    assert sampler(videos(num_frames)).plan(3, 0).frames.tolist() == list(range(16))


def test_eval_segments_are_the_middles_by_the_plain_formula() -> None:
    for num_frames in [*range(16, 400), 1776, 99_999]:
        expected = [int(num_frames / 16 / 2 + num_frames / 16 * i) for i in range(16)]
        frames = sampler(videos(num_frames), train=False).plan(0, 0).frames
        assert frames.tolist() == expected
        assert frames.dtype == np.int32


def test_eval_segment_views_stand_at_different_places_of_each_part() -> None:
    clip = ClipSpec(num_frames=4, views=3)
    made = sampler(videos(40), clip, train=False)
    assert made.num_clips == 3
    # Parts of 10 frames: at 1/4, 2/4 and 3/4 of each.
    assert [made.plan(0, v).frames.tolist() for v in range(3)] == [[2, 12, 22, 32], [5, 15, 25, 35], [7, 17, 27, 37]]


# Consecutive


def test_train_consecutive_starts_are_uniform_both_ends_included() -> None:
    clip = ClipSpec(num_frames=8, sampling="consecutive", stride=3)
    num_frames = clip.span + 9
    made = sampler(videos(num_frames), clip)
    starts = []
    for epoch in range(2000):
        frames = made.plan(epoch, 0).frames
        assert np.diff(frames).tolist() == [3] * 7
        starts.append(int(frames[0]))
    assert chi_square(np.bincount(starts)) < 30
    assert min(starts) == 0
    assert max(starts) + clip.span == num_frames


def test_train_consecutive_of_a_video_as_long_as_the_clip_starts_at_0() -> None:
    clip = ClipSpec(num_frames=8, sampling="consecutive", stride=3)
    assert sampler(videos(22), clip).plan(9, 0).frames.tolist() == list(range(0, 22, 3))


def windows(length: int, **fields: Any) -> list[list[int]]:
    clip = ClipSpec(sampling="consecutive", **fields)
    made = sampler(videos(length), clip, train=False)
    return [made.plan(0, v).frames.tolist() for v in range(made.num_clips)]


def test_eval_all_windows_do_not_overlap_and_a_short_tail_is_looped() -> None:
    first, second, third = windows(40, num_frames=16, views="all")
    assert first == list(range(16))
    assert second == list(range(16, 32))
    assert third == [*range(32, 40), *range(32, 40)]
    assert windows(48, num_frames=16, views="all") == [list(range(k, k + 16)) for k in (0, 16, 32)]
    assert windows(33, num_frames=16, views="all")[-1] == [32] * 16
    assert windows(5, num_frames=8, views="all") == [[0, 1, 2, 3, 4, 0, 1, 2]]


def test_eval_all_windows_with_a_stride() -> None:
    assert windows(40, num_frames=8, stride=2, views="all") == [
        list(range(0, 16, 2)),
        list(range(16, 32, 2)),
        [32, 34, 36, 38] * 2,
    ]
    assert windows(47, num_frames=8, stride=2, views="all")[-1] == list(range(32, 48, 2))  # just fits


@pytest.mark.parametrize(
    ("views", "starts"), [(1, [12]), (2, [0, 24]), (3, [0, 12, 24]), (4, [0, 8, 16, 24]), (6, [0, 5, 10, 14, 19, 24])]
)
def test_eval_views_spread_from_the_first_to_the_last_start(views: int, starts: list[int]) -> None:
    assert windows(40, num_frames=16, views=views) == [list(range(s, s + 16)) for s in starts]


# Short videos


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("repeat", [0, 0, 0, 1, 1, 1, 2, 2]),
        ("loop", [0, 1, 2, 0, 1, 2, 0, 1]),
        ("edge", [0, 1, 2, 2, 2, 2, 2, 2]),
    ],
)
@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
@pytest.mark.parametrize("train", [True, False])
def test_video_shorter_than_the_clip(short: Any, expected: list[int], sampling: Any, train: bool) -> None:
    clip = ClipSpec(num_frames=8, sampling=sampling, short=short)
    assert sampler(videos(3), clip, train=train).plan(0, 0).frames.tolist() == expected


@pytest.mark.parametrize(
    ("short", "expected"),
    [("repeat", [0, 0, 1, 1, 2, 3, 3, 4]), ("loop", [0, 2, 4, 1, 3, 0, 2, 4]), ("edge", [0, 2, 4, 4, 4, 4, 4, 4])],
)
def test_video_shorter_than_a_clip_with_a_stride(short: Any, expected: list[int]) -> None:
    clip = ClipSpec(num_frames=8, sampling="consecutive", stride=2, short=short)
    for train in (True, False):
        assert sampler(videos(5), clip, train=train).plan(0, 0).frames.tolist() == expected


def test_one_frame_repeats_whatever_the_rule() -> None:
    for short in ("repeat", "loop", "edge"):
        clip = ClipSpec(num_frames=4, short=short)  # type: ignore[arg-type]
        assert sampler(videos(1), clip).plan(0, 0).frames.tolist() == [0] * 4


@settings(deadline=None, max_examples=300)
@given(
    num_frames=st.integers(1, 3000),
    count=st.integers(1, 64),
    stride=st.integers(1, 9),
    sampling=st.sampled_from(["segments", "consecutive"]),
    short=st.sampled_from(["repeat", "loop", "edge"]),
    views=st.one_of(st.sampled_from(["all", "paper"]), st.integers(1, 12)),
    train=st.booleans(),
    epoch=st.integers(0, 99),
)
def test_frames_always_exist(
    num_frames: int, count: int, stride: int, sampling: Any, short: Any, views: Any, train: bool, epoch: int
) -> None:
    if sampling == "segments":
        stride, views = 1, 3 if isinstance(views, str) else views
    clip = ClipSpec(num_frames=count, sampling=sampling, stride=stride, short=short, views=views)
    made = sampler(videos(num_frames), clip, train=train)
    for position in {0, made.num_clips - 1}:
        frames = made.plan(epoch, position).frames
        assert frames.shape == (count,)
        assert 0 <= frames.min() <= frames.max() < num_frames
        if sampling == "segments":
            assert (np.diff(frames) >= 0).all() or short == "loop"


# The clips of Hara et al. 2018 (arXiv:1711.09577), as the authors' code takes them. The golden file says what that code
# gives, and where it is from.

THEIRS: dict[str, dict[str, Any]] = json.loads((GOLDEN.parent / "windows.json").read_text())
PAPER_CLIP = ClipSpec(num_frames=16, sampling="consecutive", short="loop")


def looped(start: int, count: int) -> list[int]:
    """16 frames: the `count` frames from `start` on, again and again."""
    return [start + i % count for i in range(16)]


@pytest.mark.parametrize("views", ["paper", "all"])
def test_windows_are_those_of_the_authors_code(views: str) -> None:
    for frames, theirs in THEIRS[views].items():
        # Their code for the paper has no window of a video of one frame; such a video is evaluated here all the same.
        assert windows(int(frames), num_frames=16, views=views) == [looped(*window) for window in theirs or [(0, 1)]], (
            frames
        )
    assert len(THEIRS[views]) == 100


def test_paper_and_all_differ_in_a_last_window_of_one_frame_alone() -> None:
    for frames in range(1, 200):
        every = windows(frames, num_frames=16, views="all")
        theirs = windows(frames, num_frames=16, views="paper")
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
    clip = PAPER_CLIP.model_copy(update={"reach_end": False})
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
    clip = PAPER_CLIP.model_copy(update={"reach_end": False, "views": 3})
    for frames in (3, 15, 16, 17, 90):
        for view in range(3):
            theirs = consecutive_frames(frames, clip, None, view)
            np.testing.assert_array_equal(
                theirs, consecutive_frames(frames, PAPER_CLIP.model_copy(update={"views": 3}), None, view)
            )
    word = random_words(16, 0)
    np.testing.assert_array_equal(consecutive_frames(9, clip, word), consecutive_frames(9, PAPER_CLIP, word))


def test_three_views_are_the_windows_by_which_the_authors_code_validates_or_one_frame_off() -> None:
    """Of 46 and from 48 frames on. A shorter video has more than three windows there, each at least a frame apart."""
    for frames, theirs in THEIRS["validation"].items():
        number = int(frames)
        if number < 46 or number == 47:
            assert len(theirs) > 3 or number in (1, 2, 3, 4), frames
            continue
        starts = [window[0] for window in windows(number, num_frames=16, views=3)]
        assert [count for _, count in theirs] == [16] * 3, frames
        off = 0 if number % 2 == 0 else 1
        assert [start for start, _ in theirs] == [starts[0], starts[1] - off, starts[2] - off], frames

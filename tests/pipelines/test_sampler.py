from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import chi_square, sampler, videos

from pipelines.draws import below, random_words
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

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.sampler import (
    ClipPlan,
    ClipSampler,
    VideoColumns,
    below,
    consecutive_frames,
    crop_positions,
    crop_sizes,
    eval_geometry,
    random_words,
    segment_frames,
    train_box,
)
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

GOLDEN = Path(__file__).parent / "golden" / "sampler.json"
ROOT = Path(__file__).resolve().parent.parent

# The code's powers of 0.84089641525, not the exact 2^(-k/4): its last crop of a 240 px side is 119 px, not 120.
PAPER = AugmentSpec(scales=tuple(0.84089641525**k for k in range(5)), max_scale_step=0, positions="corners5", snap_px=0)


def videos(*num_frames: int, height: int = 240, width: int = 320) -> VideoColumns:
    """Videos of these lengths; ids are 100, 101, .., labels 0, 1, 2, 0, .."""
    count = len(num_frames)
    return VideoColumns(
        np.arange(100, 100 + count),
        np.arange(count) % 3,
        np.array(num_frames, np.int64),
        np.full(count, height),
        np.full(count, width),
    )


def sampler(
    columns: VideoColumns,
    clip: ClipSpec | None = None,
    augment: AugmentSpec | None = None,
    *,
    seed: int = 0,
    train: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> ClipSampler:
    spec = ShardSpec(index=shard[0], count=shard[1])
    return ClipSampler(columns, clip or ClipSpec(), augment or AugmentSpec(), seed=seed, train=train, shard=spec)


def as_json(plan: ClipPlan) -> dict[str, Any]:
    return {
        "video_id": plan.video_id,
        "label": plan.label,
        "frames": plan.frames.tolist(),
        "box": list(plan.box),
        "resized": list(plan.resized),
        "window": list(plan.window),
        "mirror": plan.mirror,
        "is_real": plan.is_real,
    }


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


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
    views=st.one_of(st.just("all"), st.integers(1, 12)),
    train=st.booleans(),
    epoch=st.integers(0, 99),
)
def test_frames_always_exist(
    num_frames: int, count: int, stride: int, sampling: Any, short: Any, views: Any, train: bool, epoch: int
) -> None:
    if sampling == "segments":
        stride, views = 1, 3 if views == "all" else views
    clip = ClipSpec(num_frames=count, sampling=sampling, stride=stride, short=short, views=views)
    made = sampler(videos(num_frames), clip, train=train)
    for position in {0, made.num_clips - 1}:
        frames = made.plan(epoch, position).frames
        assert frames.shape == (count,)
        assert 0 <= frames.min() <= frames.max() < num_frames
        if sampling == "segments":
            assert (np.diff(frames) >= 0).all() or short == "loop"


# Crops


def test_reference_crops_of_320x240_are_10_pairs() -> None:
    pairs = crop_sizes(240, 320, AugmentSpec())
    assert len(pairs) == 10
    assert {(w, h) for h, w in pairs} == {
        (240, 240), (240, 210), (210, 240), (210, 210), (210, 180), (180, 210), (180, 180), (180, 158), (158, 180),
        (158, 158),
    }  # fmt: skip
    assert crop_sizes(320, 240, AugmentSpec()) == pairs


def test_paper_crops_of_320x240_are_5_squares() -> None:
    assert crop_sizes(240, 320, PAPER) == [(s, s) for s in (240, 201, 169, 142, 119)]


@pytest.mark.parametrize(
    ("short", "side"),
    # int(0.66 * short) is 109, 110, 111, 113, 114, 115.
    [(166, 109), (168, 112), (169, 112), (172, 112), (174, 112), (175, 115)],
)
def test_crop_side_nearer_than_3_px_to_the_clip_snaps(short: int, side: int) -> None:
    spec = AugmentSpec(scales=(1.0, 0.66), max_scale_step=0)
    assert crop_sizes(short, 320, spec) == [(short, short), (side, side)]
    loose = AugmentSpec(scales=(1.0, 0.66), max_scale_step=0, snap_px=0)
    assert crop_sizes(short, 320, loose)[1] == (int(short * 0.66),) * 2


def test_crop_never_snaps_beyond_the_frame() -> None:
    assert crop_sizes(110, 320, AugmentSpec(scales=(1.0,))) == [(110, 110)]


def test_crop_positions_are_corners_centre_edge_middles_and_quarter_points() -> None:
    corners5 = {(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)}
    middles = {(0, 2), (2, 0), (2, 4), (4, 2)}
    quarters = {(1, 1), (1, 3), (3, 1), (3, 3)}
    assert set(crop_positions("corners5")) == corners5
    assert len(crop_positions("corners5")) == 5
    assert set(crop_positions("grid13")) == corners5 | middles | quarters
    assert len(crop_positions("grid13")) == 13


def word_for(i: int, count: int) -> int:
    """The smallest word that `below` turns into i of count."""
    return -(-i * 2**32 // count) << 32


def test_train_box_reaches_each_pair_at_each_position() -> None:
    spec, height, width = AugmentSpec(), 240, 320
    drawn = [
        train_box(height, width, spec, np.array([word_for(i, 10), word_for(j, 13)], np.uint64))
        for i in range(10)
        for j in range(13)
    ]
    expected = set()
    for w, h in [(210, 180), (158, 158), (240, 210)]:
        right, below_ = width - w, height - h
        ys = (0, round(below_ / 4), round(below_ / 2), round(below_ * 3 / 4), below_)
        xs = (0, round(right / 4), round(right / 2), round(right * 3 / 4), right)
        places = [
            (0, 0),
            (0, 4),
            (4, 0),
            (4, 4),
            (2, 2),
            (0, 2),
            (2, 0),
            (2, 4),
            (4, 2),
            (1, 1),
            (1, 3),
            (3, 1),
            (3, 3),
        ]
        expected |= {(ys[y], xs[x], h, w) for y, x in places}
        assert sum(box[2:] == (h, w) for box in drawn) == 13
    assert expected <= set(drawn)


def test_train_plans_draw_sizes_and_positions_uniformly() -> None:
    made = sampler(videos(*[20] * 50))
    boxes = [made.plan(epoch, position).box for epoch in range(80) for position in range(50)]
    sizes = sorted(crop_sizes(240, 320, AugmentSpec()))
    assert chi_square(np.array([sum(box[2:] == size for box in boxes) for size in sizes])) < 30
    # A crop smaller than the frame both ways shows its position.
    inner = [box for box in boxes if box[2] < 240]
    places = np.array([(round(4 * y / (240 - h)), round(4 * x / (320 - w))) for y, x, h, w in inner])
    counts = np.array([(places == place).all(axis=1).sum() for place in crop_positions("grid13")])
    assert counts.sum() == len(inner)
    assert chi_square(counts) < 35  # 12 degrees of freedom


@settings(deadline=None, max_examples=300)
@example(height=1, width=1, size=112, scales=[1e-6], snap=3, positions="grid13", step=0, words=(2**64 - 1, 2**64 - 1))
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    size=st.integers(8, 1024),
    scales=st.lists(st.floats(0.0, 1.0, exclude_min=True), min_size=1, max_size=6),
    snap=st.integers(0, 40),
    positions=st.sampled_from(["grid13", "corners5"]),
    step=st.integers(0, 5),
    words=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)
def test_crops_lie_inside_the_frame(
    height: int,
    width: int,
    size: int,
    scales: list[float],
    snap: int,
    positions: Any,
    step: int,
    words: tuple[int, int],
) -> None:
    spec = AugmentSpec(size_px=size, scales=tuple(scales), snap_px=snap, positions=positions, max_scale_step=step)
    y, x, h, w = train_box(height, width, spec, np.array(words, np.uint64))
    assert h >= 1
    assert w >= 1
    assert 0 <= y <= y + h <= height
    assert 0 <= x <= x + w <= width
    (rows, columns), (top, left) = eval_geometry(height, width, spec)
    assert min(rows, columns) == size
    assert 0 <= top <= top + size <= rows
    assert 0 <= left <= left + size <= columns


def test_mirror_is_drawn_once_a_clip_about_half_of_them() -> None:
    made = sampler(videos(*[20] * 50))
    mirrors = [made.plan(epoch, position).mirror for epoch in range(40) for position in range(50)]
    assert {type(mirror) for mirror in mirrors} == {bool}
    assert 0.46 < np.mean(mirrors) < 0.54  # 2000 draws: 3.5 sigma
    for share in (0.0, 1.0):
        made = sampler(videos(*[20] * 50), augment=AugmentSpec(mirror=share))
        assert {made.plan(0, position).mirror for position in range(50)} == {share == 1.0}


def test_changing_one_draw_leaves_the_others() -> None:
    columns = videos(*range(30, 60))
    plain = sampler(columns)
    other = sampler(columns, ClipSpec(num_frames=4), AugmentSpec(mirror=1.0, positions="corners5"))
    for position in range(30):
        a, b = plain.plan(2, position), other.plan(2, position)
        assert a.video_id == b.video_id
        assert a.box[2:] == b.box[2:]


def test_train_plans_resize_the_crop_to_the_clip() -> None:
    plan = sampler(videos(20)).plan(0, 0)
    assert (plan.resized, plan.window) == ((112, 112), (0, 0))


def test_eval_geometry_of_landscape_and_portrait() -> None:
    spec = AugmentSpec()
    assert eval_geometry(240, 320, spec) == ((112, 149), (0, 18))
    assert eval_geometry(320, 240, spec) == ((149, 112), (18, 0))
    assert eval_geometry(112, 112, spec) == ((112, 112), (0, 0))
    plan = sampler(videos(20, height=320, width=240), train=False).plan(0, 0)
    assert (plan.box, plan.resized, plan.window, plan.mirror) == ((0, 0, 320, 240), (149, 112), (18, 0), False)


# Order, epochs, shards


def test_order_is_another_permutation_for_each_epoch_and_seed() -> None:
    columns = videos(*[20] * 40)
    orders = {(s, e): tuple(sampler(columns, seed=s).order(e).tolist()) for s in (0, 1, 2**62) for e in range(4)}
    assert all(sorted(order) == list(range(40)) for order in orders.values())
    assert len(set(orders.values())) == len(orders)
    made = sampler(columns)
    assert [made.plan(1, p).video_id - 100 for p in range(40)] == list(orders[0, 1])


def test_order_puts_each_video_everywhere() -> None:
    made = sampler(videos(*[20] * 6))
    places = np.array([made.order(epoch) for epoch in range(1200)])
    for place in range(6):
        assert chi_square(np.bincount(places[:, place], minlength=6)) < 22  # 5 degrees of freedom


def test_eval_order_is_the_index_and_the_same_every_epoch() -> None:
    made = sampler(videos(30, 50, 33), ClipSpec(sampling="consecutive", views="all"), train=False)
    assert [made.plan(0, p).video_id for p in range(made.num_clips)] == [100] * 2 + [101] * 4 + [102] * 3
    assert [made.plan(0, p).label for p in range(made.num_clips)] == [0] * 2 + [1] * 4 + [2] * 3
    for position in range(made.num_clips):
        assert as_json(made.plan(5, position)) == as_json(made.plan(0, position))


def test_plan_is_the_same_whatever_was_asked_before() -> None:
    columns = videos(*range(30, 50))
    places = [(epoch, position) for epoch in range(3) for position in range(20)]
    made = sampler(columns, seed=7)
    forward = {place: as_json(made.plan(*place)) for place in places}
    backward = {place: as_json(made.plan(*place)) for place in reversed(places)}
    alone = {place: as_json(sampler(columns, seed=7).plan(*place)) for place in places}
    assert forward == backward == alone
    assert len({tuple(plan["frames"]) for plan in forward.values()}) > 50  # and not all alike


def test_plan_is_the_same_in_a_fresh_process() -> None:
    code = (
        "import json, test_sampler as t\n"
        "made = t.sampler(t.videos(*range(30, 50)), seed=7)\n"
        "print(json.dumps([t.as_json(made.plan(e, p)) for e, p in [(9, 3), (0, 0), (2**31, 19)]]))\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "123"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    made = sampler(videos(*range(30, 50)), seed=7)
    assert json.loads(result.stdout) == [as_json(made.plan(e, p)) for e, p in [(9, 3), (0, 0), (2**31, 19)]]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_shards_together_are_the_one_shard(train: bool, count: int) -> None:
    columns, batch_size = videos(*range(30, 53)), 2
    one = sampler(columns, train=train)
    shards = [sampler(columns, train=train, shard=(k, count)) for k in range(count)]
    lengths = {shard.num_batches(batch_size) for shard in shards}
    every = batch_size * count
    assert lengths == ({23 // every} if train else {-(-23 // every)})
    (length,) = lengths
    together = []
    for number in range(length):
        parts = [list(shard.batch(1, number, batch_size)) for shard in shards]
        assert {len(part) for part in parts} == {batch_size}
        together += [as_json(part[i]) for i in range(batch_size) for part in parts]
    assert together == [as_json(one.plan(1, position)) for position in range(length * every)]
    real = [plan["video_id"] for plan in together if plan["is_real"]]
    assert len(real) == len(set(real)) == (length * every if train else 23)


def test_positions_count_clips_over_all_shards() -> None:
    columns = videos(*range(30, 54))
    one = sampler(columns)
    second = sampler(columns, shard=(1, 3))
    taken = [as_json(plan) for plan in second.batch(4, 1, 4)]  # its second batch of 4
    assert taken == [as_json(one.plan(4, position)) for position in (13, 16, 19, 22)]


def test_train_drops_the_remainder_and_eval_pads_it() -> None:
    columns = videos(*[20] * 10)
    assert sampler(columns).num_batches(4) == 2
    assert sampler(columns).num_batches(11) == 0
    made = sampler(columns, train=False)
    assert made.num_batches(4) == 3
    last = list(made.batch(0, 2, 4))
    assert [plan.is_real for plan in last] == [True, True, False, False]
    assert [plan.video_id for plan in last] == [108, 109, 109, 109]
    assert made.num_batches(5) == 2
    assert all(plan.is_real for number in range(2) for plan in made.batch(0, number, 5))


def test_empty_split_is_an_error() -> None:
    with pytest.raises(DataError, match="no videos to draw clips from: the split is empty; expected at least one"):
        sampler(videos())


# Golden values: what a checkpoint of today must find again after any upgrade


def golden() -> dict[str, Any]:
    """Words, orders and plans of fixed keys, as JSON."""
    columns = videos(8, 16, 29, 48, 131, 187, 240, 317, 640, 1776)
    consecutive = ClipSpec(sampling="consecutive", stride=2, short="loop", views=2)
    big = 2**63 - 1
    samplers = {
        "train segments": sampler(columns),
        "train consecutive": sampler(columns, consecutive, PAPER, seed=big),
        "eval segments": sampler(columns, train=False),
        "eval consecutive": sampler(columns, consecutive, PAPER, train=False),
    }
    return {
        "words": {
            " ".join(map(str, key)): [str(word) for word in random_words(4, *key).tolist()]
            for key in [(0,), (0, 0, 0), (1, 2, 3, 1), (big, 25, 9536, 3)]
        },
        "orders": {
            f"seed {seed} epoch {epoch}": sampler(columns, seed=seed).order(epoch).tolist()
            for seed in (0, 1, big)
            for epoch in (0, 1, 24)
        },
        "plans": {
            f"{name}, epoch {epoch} position {position}": as_json(made.plan(epoch, position))
            for name, made in samplers.items()
            for epoch, position in [(0, 0), (0, 9), (24, 4), (24, 11)]
        },
    }


def write_golden() -> None:
    """Write tests/golden/sampler.json anew. Only when draws are meant to change: older checkpoints can't resume then.

    From the tests folder: python -c "import test_sampler; test_sampler.write_golden()"
    """
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")


@pytest.mark.parametrize("part", ["words", "orders", "plans"])
def test_draws_are_those_of_the_golden_file(part: str) -> None:
    expected = json.loads(GOLDEN.read_text())[part]
    made = golden()[part]
    assert made.keys() == expected.keys()
    for key, value in expected.items():
        assert made[key] == value, key


def test_frame_functions_give_int32_without_words_and_with_them() -> None:
    spec = ClipSpec(num_frames=4)
    for choose in (segment_frames, consecutive_frames):
        for num_frames in (2, 40):
            for words in (None, random_words(4, 0)):
                assert choose(num_frames, spec, words).dtype == np.int32

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import PAPER, chi_square, sampler, videos

from pipelines.sampler import Jitter, crop_positions, crop_sizes, eval_geometry, train_box
from pipelines.specs import AugmentSpec, ClipSpec

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
    (rows, columns), (top, left), mirror = eval_geometry(height, width, spec)
    assert not mirror
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
    assert plan.jitter == Jitter(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0)  # the colours stay as they are


def test_eval_geometry_of_landscape_and_portrait() -> None:
    spec = AugmentSpec()
    assert eval_geometry(240, 320, spec) == ((112, 149), (0, 18), False)
    assert eval_geometry(320, 240, spec) == ((149, 112), (18, 0), False)
    assert eval_geometry(112, 112, spec) == ((112, 112), (0, 0), False)
    plan = sampler(videos(20, height=320, width=240), train=False).plan(0, 0)
    assert (plan.box, plan.resized, plan.window, plan.mirror) == ((0, 0, 320, 240), (149, 112), (18, 0), False)


def test_eval_crops() -> None:
    """Three along the long side; ten at 8/7 of the size, the last five mirror images of the first five."""
    three = AugmentSpec(eval_crops=3)
    assert [eval_geometry(240, 320, three, crop) for crop in range(3)] == [
        ((112, 149), (0, 0), False),
        ((112, 149), (0, 18), False),
        ((112, 149), (0, 37), False),
    ]
    assert [eval_geometry(320, 240, three, crop)[1] for crop in range(3)] == [(0, 0), (18, 0), (37, 0)]
    ten = [eval_geometry(240, 320, AugmentSpec(eval_crops=10), crop) for crop in range(10)]
    assert {resized for resized, _, _ in ten} == {(128, 170)}
    corners = [(0, 0), (0, 58), (16, 0), (16, 58), (8, 29)]
    assert [window for _, window, _ in ten] == corners * 2
    assert [mirror for _, _, mirror in ten] == [False] * 5 + [True] * 5


def test_the_first_crop_of_an_evaluation_is_what_no_number_gives() -> None:
    for crops in (1, 3, 10):
        spec = AugmentSpec(eval_crops=crops)
        assert eval_geometry(240, 320, spec) == eval_geometry(240, 320, spec, 0)


def test_an_evaluation_plans_every_crop_of_every_view() -> None:
    clip = ClipSpec(num_frames=4, sampling="consecutive", views="all")
    made = sampler(videos(8, 3), clip, AugmentSpec(eval_crops=3), train=False)
    assert made.num_clips == 9
    plans = [made.plan(0, position) for position in range(10)]
    assert [plan.video_id for plan in plans[:9]] == [plans[0].video_id] * 6 + [plans[6].video_id] * 3
    assert [plan.frames.tolist()[0] for plan in plans[:6]] == [0, 0, 0, 4, 4, 4]
    assert [plan.window[1] for plan in plans[:9]] == [plan.window[1] for plan in plans[:3]] * 3
    assert [plan.is_real for plan in plans] == [True] * 9 + [False]
    assert sampler(videos(8, 3), clip, AugmentSpec(eval_crops=3), train=True).num_clips == 2


# The crops of Hara et al. 2018 (arXiv:1711.09577)

# As in configs/ucf101/ucf101_r3d18_paper.yaml.
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

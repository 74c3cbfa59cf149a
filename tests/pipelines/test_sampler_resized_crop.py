"""The crop of `crop: resized`: its distribution, its bounds, and what it leaves as it was."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loading import assert_parity, make, pixels
from numpy.typing import NDArray

from pipelines.draws import between, random_words
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import ClipSampler, VideoColumns, resized_box
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

RESIZED = AugmentSpec(crop="resized")
# SHA-256 of the plans of `digest`, written down before crop and jitter could be chosen. Those of evaluations
# were written anew when the centre began to be rounded to the nearest px: of the 400 px wide videos it moved by 1 px.
GOLDEN = {
    (0, True): "03d7f1c08d4c4443155d26cb9b79af9bf76e35545fb58d27b9cacce3421f3cb9",
    (0, False): "233fb3bd502ddc84e86f570dd9594869b82de4e5de41729c1dbcb9b8b4deb0e1",
    (2**62, True): "33873a028af8fa9bccc66ff57d614f65da95e4294d904bbbfeca16fbfaf8f4c5",
    (2**62, False): "ae1607702cc712c7fc1a0d8f22ae701d95aaa1052199d9808b7e4ab80eb6ca96",
}
SPECS = {
    0: AugmentSpec(),
    2**62: AugmentSpec(
        scales=(1.0, 0.5), max_scale_step=0, positions="corners5", snap_px=0, mirror=0.3, size_px=56
    ),
}  # fmt: skip
VIDEOS = VideoColumns(
    np.arange(40),
    np.arange(40) % 7,
    3 + np.arange(40) * 29,
    np.array([240, 180, 32, 720] * 10),
    np.array([320, 400, 400, 405] * 10),
)


def sampler(augment: AugmentSpec, *, seed: int = 0, train: bool = True) -> ClipSampler:
    return ClipSampler(VIDEOS, ClipSpec(), augment, seed=seed, train=train, shard=ShardSpec())


def digest(made: ClipSampler, *fields: str) -> str:
    """Of these fields of 120 plans."""
    found = hashlib.sha256()
    for epoch in (0, 1, 24):
        for position in range(40):
            plan = made.plan(epoch, position)
            values = {**vars(plan), "frames": plan.frames.tolist()}
            found.update(repr(tuple(values[name] for name in fields)).encode())
    return found.hexdigest()


OLD = ("video_id", "label", "frames", "box", "resized", "window", "mirror", "is_real")


def boxes(height: int, width: int, spec: AugmentSpec, count: int = 4000) -> NDArray[np.int64]:
    """Boxes [count, 4] of as many draws."""
    return np.array([resized_box(height, width, spec, random_words(22, 5, number)) for number in range(count)])


def torchvision_box(
    height: int, width: int, spec: AugmentSpec, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box by what torchvision's documentation and source say of RandomResizedCrop, drawn by NumPy's distributions."""
    low, high = spec.aspect
    for _ in range(10):
        target = height * width * generator.uniform(*spec.area)
        aspect = np.exp(generator.uniform(np.log(low), np.log(high)))
        columns, rows = int(np.rint(np.sqrt(target * aspect))), int(np.rint(np.sqrt(target / aspect)))
        if 1 <= columns <= width and 1 <= rows <= height:
            top = int(generator.integers(0, height - rows, endpoint=True))
            return top, int(generator.integers(0, width - columns, endpoint=True)), rows, columns
    rows, columns = height, width
    if width / height < low:
        rows = round(width / low)
    elif width / height > high:
        columns = round(height * high)
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The Kolmogorov-Smirnov statistic: how far the two distributions are apart at most."""
    places = np.union1d(one, other)
    shares = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize(
    ("height", "width", "fields"),
    [
        (240, 320, {}),
        (320, 240, {"area": (0.3, 1.0)}),
        (112, 112, {"aspect": (0.5, 2.0)}),
        (90, 400, {"area": (0.2, 0.9)}),  # many draws do not fit
        (32, 400, {}),
        (400, 32, {"aspect": (0.5, 1.0)}),
        (17, 9, {}),  # rounding to whole px shows
    ],
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, fields: dict[str, Any]) -> None:
    spec = RESIZED.model_copy(update=fields)
    found = boxes(height, width, spec)
    generator = np.random.default_rng(7)
    expected = np.array([torchvision_box(height, width, spec, generator) for _ in range(4000)])
    # 4000 draws each: beyond 0.044 by chance less often than once in 1,000.
    for column in range(4):
        assert distance(found[:, column], expected[:, column]) < 0.044, column
    area = [(made[:, 2] * made[:, 3]) / (height * width) for made in (found, expected)]
    assert distance(*area) < 0.044
    assert distance(*(made[:, 3] / made[:, 2] for made in (found, expected))) < 0.044
    assert np.allclose(np.quantile(area[0], [0.1, 0.5, 0.9]), np.quantile(area[1], [0.1, 0.5, 0.9]), atol=0.04)


def test_area_is_uniform_and_aspect_log_uniform_where_every_draw_fits() -> None:
    spec = AugmentSpec(crop="resized", area=(0.1, 0.4), aspect=(0.5, 2.0))
    y, x, height, width = boxes(2000, 2000, spec).T
    uniform = (np.arange(4000) + 0.5) / 4000
    assert distance((height * width / 2000**2 - 0.1) / 0.3, uniform) < 0.031  # one sample: p < 0.001
    assert distance(np.log(width / height) / math.log(4.0) + 0.5, uniform) < 0.031
    assert distance(y / (2000 - height), uniform) < 0.031
    assert distance(x / (2000 - width), uniform) < 0.031
    assert abs(np.corrcoef(height * width, width / height)[0, 1]) < 0.07
    assert abs(np.corrcoef(y / (2000 - height), x / (2000 - width))[0, 1]) < 0.07


@pytest.mark.parametrize(
    ("height", "width", "fields", "box"),
    [
        (32, 400, {"area": (1.0, 1.0)}, (0, 178, 32, 43)),  # 32 * 4 / 3 wide
        (400, 32, {"area": (1.0, 1.0)}, (178, 0, 43, 32)),  # 32 / (3 / 4) high
        (100, 120, {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}, (0, 10, 100, 100)),
        (100, 120, {"area": (1e-6, 1e-6)}, (0, 0, 100, 120)),  # every draw has no px; the frame's aspect is within
        (300, 1, {"area": (1.0, 1.0), "aspect": (4.0, 5.0)}, (149, 0, 1, 1)),  # a quarter of a px is a px
    ],
)
def test_where_no_draw_fits_the_box_is_central(
    height: int, width: int, fields: dict[str, Any], box: tuple[int, int, int, int]
) -> None:
    assert {tuple(found) for found in boxes(height, width, RESIZED.model_copy(update=fields), 50).tolist()} == {box}


def test_extreme_frames_give_both_draws_and_the_fallback() -> None:
    found = boxes(32, 400, RESIZED)
    fallback = (found == (0, 178, 32, 43)).all(axis=1)
    # Of 0.08 .. 1 of this area only 0.08 .. 0.107 can fit (32 px high, 43 wide).
    assert 0.5 < fallback.mean() < 0.95
    assert len(np.unique(found[~fallback], axis=0)) > 100


@settings(deadline=None, max_examples=300)
@example(height=1, width=1, area=(1.0, 1.0), aspect=(1.0, 1.0), words=[2**64 - 1] * 22)
@example(height=1, width=4000, area=(1.0, 1.0), aspect=(100.0, 100.0), words=[0] * 22)
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    area=st.tuples(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0)).map(sorted).map(tuple),
    aspect=st.tuples(st.floats(0.01, 100.0), st.floats(0.01, 100.0)).map(sorted).map(tuple),
    words=st.lists(st.integers(0, 2**64 - 1), min_size=22, max_size=22),
)
def test_boxes_lie_inside_the_frame(height: int, width: int, area: Any, aspect: Any, words: list[int]) -> None:
    spec = AugmentSpec(crop="resized", area=area, aspect=aspect)
    y, x, h, w = resized_box(height, width, spec, np.array(words, np.uint64))
    assert 0 <= y < y + h <= height
    assert 0 <= x < x + w <= width


def test_between_scales_words_over_the_whole_range() -> None:
    words = np.array([0, 2**63, 2**64 - 1], np.uint64)
    assert between(words, 0.0, 6.0).tolist() == [0.0, 3.0, 6.0 * (1 - 2.0**-53)]
    assert between(words, 2.0, 6.0).tolist() == [2.0, 4.0, 6.0]
    assert between(words, 1.0, 1.0).tolist() == [1.0] * 3


# Plans


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("seed", [0, 2**62])
def test_plans_without_it_are_those_of_before(seed: int, train: bool) -> None:
    assert digest(sampler(SPECS[seed], seed=seed, train=train), *OLD) == GOLDEN[seed, train]


def test_it_changes_the_box_alone_and_evaluation_not_at_all() -> None:
    rest = [name for name in (*OLD, "jitter") if name != "box"]
    assert digest(sampler(RESIZED), *rest) == digest(sampler(SPECS[0]), *rest)
    assert digest(sampler(RESIZED), "box") != digest(sampler(SPECS[0]), "box")
    assert digest(sampler(RESIZED, train=False), *OLD) == GOLDEN[0, False]


def test_plans_with_it_stay_as_they_are() -> None:
    """What a checkpoint of today must find again after any upgrade."""
    assert digest(sampler(RESIZED, seed=3), *OLD) == "194cce0804c0fa662ea424470da77107101a7d56aa7652be6211dcfc4e7168c4"
    assert sampler(RESIZED, seed=3).plan(1, 2).box == (0, 178, 32, 43)


# Pixels


def test_clips_are_the_plans_carried_out_by_numpy(index: VideoIndex) -> None:
    spec = AugmentSpec(crop="resized", size_px=32, resize="graph")
    with make(index, augment=spec) as loader:
        plans = assert_parity(index, loader, list(loader), spec)
    assert len({plan.box[2:] for plan in plans}) == len(plans) == 12


def test_decoder_and_graph_resize_the_same_clips(index: VideoIndex) -> None:
    shown = {}
    for resize in ("decoder", "graph"):
        fields = {
            "crop": "resized",
            "size_px": 56,
            "resize": resize,
            "value_max": 255,
            "mean": (0,) * 3,
            "std": (1,) * 3,
        }
        with make(index, augment=AugmentSpec.model_validate(fields)) as loader:
            shown[resize] = np.concatenate([pixels(batch) for batch in loader])
    assert 25 < 10 * np.log10(255**2 / np.mean((shown["decoder"] - shown["graph"]) ** 2)) < 60


def test_a_crop_may_be_a_single_pixel_high() -> None:
    """Where one fits it is drawn, and lies anywhere; the central one would always begin at 0."""
    drawn = {resized_box(1, 2, RESIZED, random_words(22, 0, draw)) for draw in range(60)}
    assert {(0, 0, 1, 1), (0, 1, 1, 1)} <= drawn


def test_a_central_crop_has_at_least_a_pixel() -> None:
    spec = AugmentSpec(crop="resized", area=(1.0, 1.0), aspect=(3.0, 4.0))
    assert resized_box(5, 1, spec, random_words(22, 0)) == (2, 0, 1, 1)
    narrow = AugmentSpec(crop="resized", area=(1.0, 1.0), aspect=(0.2, 0.3))
    assert resized_box(1, 5, narrow, random_words(22, 0)) == (0, 2, 1, 1)

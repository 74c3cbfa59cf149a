"""Colour jitter: what is drawn, and what becomes of the pixels."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_stamped_video
from devices import DEVICES, PIXELS, load, on_host
from loading import assert_parity, make, pixels
from numpy.typing import NDArray

from pipelines.dali.graph import augment
from pipelines.dali.versions import import_dali
from pipelines.draws import random_words
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import NO_JITTER, ClipSampler, Jitter, VideoColumns, draw_jitter
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import Sample

FACTORS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
YIQ = np.array([(0.299, 0.587, 0.114), (0.596, -0.274, -0.321), (0.211, -0.523, 0.311)])


def jittered(frames: NDArray[Any], jitter: Jitter) -> NDArray[np.float64]:
    """Pixels 0..255, R G B last, by the formula of `augment`, before they are rounded."""
    angle = 2 * math.pi * jitter.hue
    turn = np.array([(1, 0, 0), (0, math.cos(angle), math.sin(angle)), (0, -math.sin(angle), math.cos(angle))])
    colours = np.linalg.inv(YIQ) @ turn @ np.diag([1.0, jitter.saturation, jitter.saturation]) @ YIQ
    contrasted = jitter.contrast * (frames.astype(float) @ colours.T) + (1 - jitter.contrast) * 128
    return np.clip(jitter.brightness * contrasted, 0, 255)


def columns(count: int = 50) -> VideoColumns:
    number = np.arange(count)
    return VideoColumns(number, number % 3, number + 20, np.full(count, 240), np.full(count, 320))


def sampler(spec: AugmentSpec, *, seed: int = 0, train: bool = True) -> ClipSampler:
    return ClipSampler(columns(), ClipSpec(), spec, seed=seed, train=train, shard=ShardSpec())


def draws(spec: AugmentSpec, epochs: int = 60) -> NDArray[np.float64]:
    """Jitters [epochs * 50, 4]."""
    made = sampler(spec)
    return np.array([made.plan(epoch, position).jitter for epoch in range(epochs) for position in range(50)])


def off_uniform(values: NDArray[np.float64], low: float, high: float) -> float:
    """The Kolmogorov-Smirnov statistic against the uniform distribution from low to high."""
    values = np.sort((values - low) / (high - low))
    return float(np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max())


# What is drawn


def test_factors_are_uniform_in_the_ranges_of_torchvision() -> None:
    found = draws(AugmentSpec(brightness=0.4, contrast=1.0, saturation=1.5, hue=0.1))
    ranges = [(0.6, 1.4), (0.0, 2.0), (0.0, 2.5), (-0.1, 0.1)]
    for column, (low, high) in enumerate(ranges):
        values = found[:, column]
        assert low <= values.min() < values.max() <= high
        assert off_uniform(values, low, high) < 0.036  # 3000 draws: p < 0.001
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.07
    made = sampler(AugmentSpec())
    mirrors = [made.plan(epoch, position).mirror for epoch in range(60) for position in range(50)]
    assert all(abs(np.corrcoef(mirrors, column)[0, 1]) < 0.07 for column in found.T)


@pytest.mark.parametrize("off", FACTORS)
def test_each_is_drawn_for_itself_and_off_is_exactly_no_change(off: str) -> None:
    both = draws(AugmentSpec.model_validate(FACTORS), 2)
    fewer = draws(AugmentSpec.model_validate({**FACTORS, off: 0.0}), 2)
    column = list(FACTORS).index(off)
    assert set(fewer[:, column]) == {NO_JITTER[column]}
    assert not np.signbit(fewer[:, column]).any()  # as -0.0 would be
    assert np.array_equal(np.delete(both, column, 1), np.delete(fewer, column, 1))
    assert len(set(both[:, column])) == 100  # a draw for each clip and epoch


def test_it_changes_nothing_else_of_a_plan_and_nothing_of_evaluation() -> None:
    spec = AugmentSpec.model_validate(FACTORS)
    for train in (True, False):
        plain, other = sampler(AugmentSpec(), train=train), sampler(spec, train=train)
        for position in range(50):
            a, b = plain.plan(3, position), other.plan(3, position)
            assert a.frames.tolist() == b.frames.tolist()
            assert a.jitter == NO_JITTER
            assert (b.jitter == NO_JITTER) == (not train)
            assert replace(a, frames=b.frames, jitter=b.jitter) == b


def test_factors_stay_as_they_are() -> None:
    """What a checkpoint of today must find again after any upgrade."""
    spec = AugmentSpec.model_validate(FACTORS)
    assert sampler(spec, seed=3).plan(1, 2).jitter == draw_jitter(spec, random_words(4, 3, 1, 2, 4))
    assert sampler(spec, seed=3).plan(1, 2).jitter == (
        0.8703865503589732,
        0.74281260121248,
        0.7075390892593387,
        0.09817270089670513,
    )
    assert sampler(spec, seed=2**62).plan(24, 49).jitter == (
        1.3967177176654846,
        1.1372811023777443,
        1.3826203425605252,
        -0.09729097984445965,
    )


def test_a_sample_without_it_is_as_before() -> None:
    sample = Sample((8,), 1, 0, True, (1, 1), (0, 0), False)
    assert sample.jitter == Jitter(1.0, 1.0, 1.0, 0.0)
    assert pickle.loads(pickle.dumps(sample._replace(jitter=Jitter(hue=0.2)))).jitter.hue == 0.2  # noqa: S301


# What becomes of the pixels


def colours_of(index: VideoIndex, decoder: str, device: str, fields: dict[str, Any]) -> tuple[int, float]:
    """How many clips were compared with the account of their plain pixels, and how many of their pixels changed."""
    spec = AugmentSpec.model_validate({**PIXELS.model_dump(), "size_px": 48, **fields})
    plain = spec.model_copy(update=dict.fromkeys(FACTORS, 0.0))
    count, changed = 0, []
    with load(index, decoder, device, augment=plain) as before, load(index, decoder, device, augment=spec) as after:
        for number, (a, b) in enumerate(zip(before, after, strict=True)):
            axes = (0, 2, 3, 4, 1) if spec.layout == "NCTHW" else range(5)
            as_they_were, found = (on_host(batch.clips).transpose(*axes) for batch in (a, b))
            for i, plan in enumerate(after.sampler.batch(0, number, after.spec.batch_size)):
                # The same geometry, and each value the nearest whole number of the formula's.
                assert np.abs(found[i] - jittered(as_they_were[i], plan.jitter)).max() < 0.502, plan
                assert np.array_equal(found[i], found[i].round())
                changed.append((found[i] != as_they_were[i]).mean())
                count += 1
    return count, float(np.mean(changed))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VideoIndex]:
    """By device four videos that DALI decodes there, of another size each."""
    found = {}
    for device, codec in (("cpu", "mjpeg"), ("gpu:0", "mpeg4")):
        root: Path = tmp_path_factory.mktemp(codec)
        (root / "a").mkdir()
        for number in range(4):
            size = (176, 128 + 16 * number)
            write_stamped_video(root / "a" / f"{number}.avi", codec=codec, num_frames=20, size=size)
        found[device] = VideoIndex.build(root, workers=0, val_fraction=0.0)
    return found


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("decoder", ["pyav", "dali"])
@pytest.mark.parametrize("resize", ["decoder", "graph"])
def test_pixels_are_those_of_the_formula_whoever_decodes(
    coded: dict[str, VideoIndex], decoder: str, resize: str, device: str
) -> None:
    count, changed = colours_of(coded[device], decoder, device, {**FACTORS, "resize": resize})
    assert count == 4
    assert changed > 0.5


@pytest.mark.parametrize(
    "fields", [{"brightness": 1.0}, {"contrast": 1.0}, {"saturation": 1.0}, {"hue": 0.5}, {"hue": 0.5, "contrast": 9.0}]
)
@pytest.mark.parametrize("layout", ["NCTHW", "NTHWC"])
def test_pixels_are_those_of_the_formula_for_each_alone(
    index: VideoIndex, fields: dict[str, float], layout: str
) -> None:
    count, changed = colours_of(index, "pyav", "cpu", {**fields, "layout": layout, "mirror": 1.0})
    assert count == 12
    assert changed > 0.3


def test_hue_turns_from_red_over_yellow_to_green() -> None:
    fn, types, Pipeline = import_dali()
    spec = AugmentSpec(size_px=8, layout="NTHWC", value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3)
    pipeline = Pipeline(batch_size=2, num_threads=1, device_id=None)
    with pipeline:
        frames = fn.constant(idata=[140, 110, 110], shape=[1, 1, 1, 3], dtype=types.UINT8, layout="FHWC")
        frames = fn.cat(*[fn.cat(*[frames] * 8, axis_name="H")] * 8, axis_name="W")
        clips = [augment(frames, None, 0, spec, jitter={"hue": degrees}) for degrees in (0.0, 60.0, 120.0)]
        pipeline.set_outputs(*clips)
    pipeline.build()
    red, yellow, green = (np.from_dlpack(clips.as_tensor())[0, 0, 0, 0] for clips in pipeline.run())
    assert red.tolist() == [140, 110, 110]  # no turn is no change, to the last digit
    assert red[0] > yellow[0] > green[0]
    assert red[1] < yellow[1] < green[1]
    assert yellow[2] < min(yellow[:2])
    luma = np.array([red, yellow, green]) @ YIQ[0]
    assert np.abs(luma - luma[0]).max() < 1.0


def test_evaluation_shows_the_colours_as_they_are(index: VideoIndex) -> None:
    spec = AugmentSpec.model_validate({**FACTORS, "size_px": 32})
    with make(index, augment=spec, train=False) as loader:
        assert len(assert_parity(index, loader, list(loader), spec)) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_fails_is_black_whatever_was_drawn(copied: VideoIndex, workers: int) -> None:
    fields = {"contrast": 1.0, "size_px": 32, "value_max": 255, "mean": (0,) * 3, "std": (1,) * 3}
    for video in (4, 5):
        (copied.root / copied[video].path).unlink()
    with make(copied, augment=AugmentSpec.model_validate(fields), workers=workers) as loader:
        batches = [batch for _ in range(2) for batch in loader]
        plans = [plan for epoch in range(2) for number in range(4) for plan in loader.sampler.batch(epoch, number, 3)]
    assert any(plan.jitter.contrast < 0.9 for plan in plans if plan.video_id in (4, 5))  # would make black grey
    assert [bad.video_id for batch in batches for bad in batch.bad].count(5) == 2
    for batch in batches:
        for shown, real in zip(pixels(batch), batch.is_real, strict=True):
            assert bool(shown.any()) == bool(real)


def test_any_number_of_workers_jitters_alike(index: VideoIndex) -> None:
    spec = AugmentSpec.model_validate({**FACTORS, "crop": "resized", "size_px": 32})
    shown = []
    for workers in (0, 2):
        with make(index, augment=spec, workers=workers) as loader:
            shown.append([pixels(batch).tobytes() for batch in loader])
    assert shown[0] == shown[1]

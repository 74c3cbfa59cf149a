from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec, Spec

SPECS = [ClipSpec, AugmentSpec, LoaderSpec, ShardSpec]

# spec, the broken fields, the field that is named, what is said about it
BROKEN: list[tuple[type[Spec], dict[str, Any], str, str]] = [
    (ClipSpec, {"num_frames": 0}, "num_frames", "greater than or equal to 1"),
    (ClipSpec, {"num_frames": 2.5}, "num_frames", "valid integer"),
    (ClipSpec, {"sampling": "random"}, "sampling", "'segments' or 'consecutive'"),
    (ClipSpec, {"sampling": "consecutive", "stride": 0}, "stride", "greater than or equal to 1"),
    (ClipSpec, {"short": "black"}, "short", "'repeat', 'loop' or 'edge'"),
    (ClipSpec, {"views": 0}, "views", "greater than or equal to 1"),
    (ClipSpec, {"views": "some"}, "views", "'all'"),
    (ClipSpec, {"stride": 2}, "", "stride 2 has no meaning for segments sampling; expected 1"),
    (ClipSpec, {"views": "all"}, "", "'all' needs sampling 'consecutive': a clip of segments spans the whole video"),
    (AugmentSpec, {"size_px": 7}, "size_px", "greater than or equal to 8"),
    (AugmentSpec, {"size_px": 1025}, "size_px", "less than or equal to 1024"),
    (AugmentSpec, {"scales": ()}, "scales", "at least 1 item"),
    (AugmentSpec, {"scales": (1.0, 0.0)}, "", "(1.0, 0.0): expected shares of the short side, 0 < scale <= 1"),
    (AugmentSpec, {"scales": (1.01,)}, "", "expected shares of the short side, 0 < scale <= 1"),
    (AugmentSpec, {"scales": (math.nan,)}, "scales", "finite number"),
    (AugmentSpec, {"max_scale_step": -1}, "max_scale_step", "greater than or equal to 0"),
    (AugmentSpec, {"positions": "grid9"}, "positions", "'grid13' or 'corners5'"),
    (AugmentSpec, {"snap_px": -1}, "snap_px", "greater than or equal to 0"),
    (AugmentSpec, {"mirror": -0.1}, "mirror", "greater than or equal to 0"),
    (AugmentSpec, {"mirror": 1.1}, "mirror", "less than or equal to 1"),
    (AugmentSpec, {"mirror": math.nan}, "mirror", "finite number"),
    (AugmentSpec, {"value_max": 127}, "value_max", "1 or 255"),
    (AugmentSpec, {"mean": (0.5, 0.5)}, "mean", "required"),
    (AugmentSpec, {"mean": (0.5, math.inf, 0.5)}, "mean", "finite number"),
    (AugmentSpec, {"std": (0.2, 0.2, 0.2, 0.2)}, "std", "at most 3 items"),
    (AugmentSpec, {"std": (0.2, 0.0, 0.2)}, "", "std (0.2, 0.0, 0.2): expected three numbers > 0"),
    (AugmentSpec, {"std": (0.2, 0.2, -math.inf)}, "std", "finite number"),
    (AugmentSpec, {"crop": "random"}, "crop", "'scales' or 'resized'"),
    (AugmentSpec, {"crop": "resized", "area": (0.0, 1.0)}, "", "area (0.0, 1.0): expected shares of the frame's"),
    (AugmentSpec, {"crop": "resized", "area": (0.5, 0.4)}, "", "area, 0 < smallest <= largest <= 1"),
    (AugmentSpec, {"crop": "resized", "area": (0.5, 1.1)}, "", "area, 0 < smallest <= largest <= 1"),
    (AugmentSpec, {"crop": "resized", "area": (0.5,)}, "area", "required"),
    (AugmentSpec, {"crop": "resized", "area": (0.5, math.nan)}, "area", "finite number"),
    (AugmentSpec, {"crop": "resized", "aspect": (0.0, 1.0)}, "", "aspect (0.0, 1.0): expected width / height, 0.01 <="),
    (AugmentSpec, {"crop": "resized", "aspect": (2.0, 1.0)}, "", "height, 0.01 <= smallest <= largest <= 100"),
    (AugmentSpec, {"crop": "resized", "aspect": (1.0, 101.0)}, "", "height, 0.01 <= smallest <= largest <= 100"),
    (AugmentSpec, {"area": (0.5, 1.0)}, "", "area (0.5, 1.0) has no meaning for crop 'scales'; leave it out"),
    (AugmentSpec, {"aspect": (1.0, 1.0)}, "", "aspect (1.0, 1.0) has no meaning for crop 'scales'; leave it out"),
    (AugmentSpec, {"brightness": -0.1}, "brightness", "greater than or equal to 0"),
    (AugmentSpec, {"contrast": 10.5}, "contrast", "less than or equal to 10"),
    (AugmentSpec, {"saturation": math.inf}, "saturation", "finite number"),
    (AugmentSpec, {"hue": 0.6}, "hue", "less than or equal to 0.5"),
    (AugmentSpec, {"hue": -0.1}, "hue", "greater than or equal to 0"),
    (AugmentSpec, {"layout": "NCHW"}, "layout", "'NCTHW' or 'NTHWC'"),
    (LoaderSpec, {"batch_size": 0}, "batch_size", "greater than or equal to 1"),
    (LoaderSpec, {"workers": -1}, "workers", "greater than or equal to 0"),
    (LoaderSpec, {"workers": 513}, "workers", "less than or equal to 512"),
    (LoaderSpec, {"workers": "many"}, "workers", "'auto'"),
    (LoaderSpec, {"threads": 0}, "threads", "greater than or equal to 1"),
    (LoaderSpec, {"threads": 513}, "threads", "less than or equal to 512"),
    (LoaderSpec, {"prefetch": 0}, "prefetch", "greater than or equal to 1"),
    (LoaderSpec, {"prefetch": 65}, "prefetch", "less than or equal to 64"),
    (LoaderSpec, {"seed": -1}, "seed", "greater than or equal to 0"),
    (LoaderSpec, {"seed": 2**63}, "seed", "less than 9223372036854775808"),
    (LoaderSpec, {"dali_share": 0.5}, "", "dali_share 0.5 has no meaning for decoder 'auto'; leave it out, or choose"),
    (LoaderSpec, {"decoder": "hybrid", "dali_share": 1.0}, "dali_share", "less than 1"),
    (ShardSpec, {"index": -1}, "index", "greater than or equal to 0"),
    (ShardSpec, {"count": 0}, "count", "greater than or equal to 1"),
    (ShardSpec, {"index": 2, "count": 2}, "", "shard index 2 of 2: expected 0..1"),
]


@pytest.mark.parametrize(("spec", "fields", "name", "text"), BROKEN)
def test_broken_rule_names_the_field_and_what_is_expected(
    spec: type[Spec], fields: dict[str, Any], name: str, text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    problems = [(str(p["loc"][0]) if p["loc"] else "", p["msg"]) for p in caught.value.errors()]
    assert any(where == name and text in message for where, message in problems), problems
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (ClipSpec, {"num_frames": 1}),
        (ClipSpec, {"sampling": "consecutive", "stride": 5, "views": "all", "short": "edge"}),
        (AugmentSpec, {"size_px": 8, "scales": (1e-3, 1.0), "mirror": 0.0, "value_max": 255, "std": (1, 1, 1)}),
        (AugmentSpec, {"size_px": 1024, "mirror": 1.0, "max_scale_step": 0, "snap_px": 0, "layout": "NTHWC"}),
        (AugmentSpec, {"crop": "resized", "area": (1e-3, 1.0), "aspect": (0.01, 100.0)}),
        (AugmentSpec, {"crop": "resized", "area": (1.0, 1.0), "aspect": (1.0, 1.0)}),
        (AugmentSpec, {"brightness": 10.0, "contrast": 0.0, "saturation": 1.0, "hue": 0.5}),
        (LoaderSpec, {"workers": 0, "threads": 1, "prefetch": 64, "seed": 2**63 - 1, "batch_size": 1}),
        (LoaderSpec, {"workers": "auto", "threads": "auto"}),
        (ShardSpec, {"index": 1, "count": 2}),
    ],
)
def test_limits_themselves_are_allowed(spec: type[Spec], fields: dict[str, Any]) -> None:
    made = spec(**fields)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize("spec", SPECS)
def test_specs_are_frozen_comparable_and_hashable(spec: type[Spec]) -> None:
    made = spec()
    name = next(iter(spec.model_fields))
    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(made, name, getattr(made, name))
    assert made == spec()
    assert hash(made) == hash(spec())


@pytest.mark.parametrize("spec", SPECS)
def test_unknown_key_is_an_error(spec: type[Spec]) -> None:
    with pytest.raises(ValidationError, match=r"(?s)colour.*Extra inputs are not permitted"):
        spec(colour="red")


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        AugmentSpec(size_px=1, mirror=2.0, layout="THWC")
    assert {p["loc"][0] for p in caught.value.errors()} == {"size_px", "mirror", "layout"}


def test_defaults_are_the_reference_recipe() -> None:
    clip, augment, loader = ClipSpec(), AugmentSpec(), LoaderSpec()
    assert (clip.num_frames, clip.sampling, clip.stride, clip.views, clip.reach_end) == (16, "segments", 1, 1, True)
    assert (augment.size_px, augment.scales, augment.max_scale_step) == (112, (1.0, 0.875, 0.75, 0.66), 1)
    assert (augment.positions, augment.snap_px, augment.mirror, augment.value_max) == ("grid13", 3, 0.5, 1)
    assert (augment.crop, augment.jitters) == ("scales", False)
    assert augment.mean == (0.485, 0.456, 0.406)
    assert augment.std == (0.229, 0.224, 0.225)
    assert (loader.batch_size, loader.seed) == (64, 0)


def test_span_counts_both_end_frames() -> None:
    assert ClipSpec(num_frames=16, sampling="consecutive").span == 16
    assert ClipSpec(num_frames=16, sampling="consecutive", stride=4).span == 61
    assert ClipSpec(num_frames=1, sampling="consecutive", stride=9).span == 1


def test_specs_survive_json() -> None:
    for made in (
        ClipSpec(sampling="consecutive", views="all"),
        ClipSpec(sampling="consecutive", views="paper", reach_end=False),
        AugmentSpec(scales=(1.0, 0.5), layout="NTHWC"),
        AugmentSpec(crop="resized", area=(0.2, 0.9), hue=0.1),
        LoaderSpec(workers=3, seed=2**62),
        LoaderSpec(batch_size="auto"),
        ShardSpec(index=3, count=4),
    ):
        assert type(made).model_validate_json(made.model_dump_json()) == made


def test_a_batch_that_is_left_to_a_choice_has_no_number_of_its_own() -> None:
    assert LoaderSpec(batch_size="auto").batch_size_or(8) == 8
    assert LoaderSpec(batch_size=5).batch_size_or(8) == 5
    with pytest.raises(ValidationError):
        LoaderSpec(batch_size=0)

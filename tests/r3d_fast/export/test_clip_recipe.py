"""What r3d_fast.json says about clips, taken at its word: its formulas are computed and compared with the sampler."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.export.clip_recipe import ClipRecipe, clip_recipe

CLIPS: list[dict[str, Any]] = [
    {"sampling": sampling, "views": views, "short": short, "num_frames": 5, "stride": stride}
    for sampling, stride in (("segments", 1), ("consecutive", 1), ("consecutive", 3))
    for views in (1, 4, "all", "paper")
    for short in ("repeat", "loop", "edge")
    if sampling == "consecutive" or isinstance(views, int)
]


def as_said(recipe: ClipRecipe, frames: int, clip: ClipSpec) -> list[list[int]]:
    """The frames of the clips of a video, computed by the formulas that stand in the sentences of `recipe`."""
    values: dict[str, Any] = {"F": frames, "T": clip.num_frames, "stride": clip.stride, "int": int, "min": min}
    values |= {name: int(number) for name, number in re.findall(r"\b(span|T|stride) = (\d+)", recipe.frames)}
    formulas = [
        text.replace("mod", "%")
        for text in re.findall(r"frame ([^:,]+?(?:, F - 1\))?)(?:, and|\. If|$)", recipe.frames)
    ]
    steps = range(clip.num_frames)

    def computed(formula: str, **more: int) -> list[int]:
        return [int(eval(formula, {"i": i, **values, **more})) for i in steps]  # noqa: S307 - our own text

    if window := re.search(r"b = v \* (\d+)", recipe.frames):
        said = re.findall(r"as long as (.+?):", recipe.frames)[0].replace(" =", " ==").replace(",", "")
        every = range(0, 2 * frames + 1, int(window[1]))
        begins = [b for b in every if eval(said, {"b": b, **values})]  # noqa: S307 - our own text
        return [computed(formulas[0 if frames - b >= values["span"] else 1], b=b) for b in begins]
    views = int(found[1]) if (found := re.search(r"has (\d+) clips", recipe.frames)) else 1
    short = frames < values.get("span", values["T"])
    return [computed(formulas[short], v=v) for v in range(views)]


@pytest.mark.parametrize("given", CLIPS, ids=str)
def test_the_sentences_give_the_frames_that_evaluation_takes(given: dict[str, Any]) -> None:
    clip = ClipSpec.model_validate(given)
    recipe = clip_recipe(clip, AugmentSpec())
    assert len({example.video_frames for example in recipe.frames_examples}) >= 3
    for example in recipe.frames_examples:
        assert as_said(recipe, example.video_frames, clip) == [list(frames) for frames in example.clips]


@pytest.mark.parametrize("size", [32, 112])
def test_the_sentence_about_pixels_gives_the_windows_of_the_examples(size: int) -> None:
    recipe = clip_recipe(ClipSpec(), AugmentSpec(size_px=size))
    assert "an RGB frame, upright" in recipe.pixels
    side = int(re.findall(r"short side becomes (\d+) px", recipe.pixels)[0])
    corner = re.findall(r"round\(\((\w+) - (\d+)\) / 2\)", recipe.pixels)
    assert [name for name, _ in corner] == ["height", "width"]
    for example in recipe.pixels_examples:
        short = min(example.height, example.width)
        height, width = (int(length * side / short) for length in (example.height, example.width))
        assert example.resized == (height, width)
        assert example.windows == ((round((height - size) / 2), round((width - size) / 2)),)


@pytest.mark.parametrize(("crops", "said"), [(3, "three: the beginning"), (10, "ten: the four corners")])
def test_more_crops_are_named_and_shown(crops: Any, said: str) -> None:
    recipe = clip_recipe(ClipSpec(), AugmentSpec(eval_crops=crops))
    assert said in recipe.pixels
    assert all(len(example.windows) == crops for example in recipe.pixels_examples)
    assert ("short side becomes 128 px" in recipe.pixels) == (crops == 10)


def test_the_values_of_pixels_are_given_in_numbers() -> None:
    augment = AugmentSpec(value_max=255, mean=(1.0, 2.0, 3.5), std=(1.0, 1.0, 2.0))
    said = clip_recipe(ClipSpec(), augment).values
    assert "(pixel * 255 / 255 - mean) / std" in said
    assert "mean [1.0, 2.0, 3.5] and std [1.0, 1.0, 2.0]" in said

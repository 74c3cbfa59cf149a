"""Evaluation protocols: which clips are evaluated; and evaluations of several splits with their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import DataError, UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.weights.path_kinds import other_kind

PLACE = "{split}"  # stands for the number of a split in a path or an override


Protocol = Literal["clip", "video", "video-all"]


def protocol_overrides(protocol: Protocol | None, views: int | None, crops: int | None) -> list[str]:
    """The config overrides for a named protocol, or for numbers of views and crops.

    "clip": one centre crop of one clip of each video, as the reference recipe is evaluated. "video": all
    non-overlapping clips of a video, their softmax averaged; the frames of a short last one are repeated (Hara et al.
    2018, arXiv:1711.09577, section 3.2). As in their code of that paper (branch CVPR2018), no clip begins at the last
    frame; in their later code (branch master) one does, which is "video-all". Raises UsageError where two arguments
    contradict each other.
    """
    if protocol is not None and views is not None:
        raise UsageError("--protocol and --views both set the number of clips of a video; give only one of them")
    if protocol == "clip" and crops not in (None, 1):
        raise UsageError(
            f"--protocol clip takes one crop of each video, --crops {crops} asks for {crops}; give --views 1 in place "
            "of --protocol clip"
        )
    count = {"clip": "1", "video": "paper", "video-all": "all", None: None if views is None else str(views)}[protocol]
    crops = 1 if protocol == "clip" else crops
    given = {"eval.views": count, "eval.crops": crops}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


@dataclass(frozen=True)
class SplitModel:
    """The evaluation of one split: its number (None: no splits were asked for), a model, a config and overrides."""

    number: int | None
    model: Path
    config: str
    overrides: tuple[str, ...]


def models_of_splits(
    splits: str | None, run: Path | None, weights: Path | None, config: str | None, overrides: Sequence[str]
) -> list[SplitModel]:
    """A SplitModel for each number in `splits` ("1,2,3"); the number replaces `{split}` in paths and overrides.

    Without `splits` it is one SplitModel, with everything as given. Raises UsageError where no model is given, or
    where it would be the same model for several splits.
    """
    if (run is None) == (weights is None) or (weights is not None and config is None):
        raise UsageError("expected either --run DIR, or -c CFG with --weights FILE")
    model = run or weights
    assert model is not None
    if run is not None and run.is_file():
        raise UsageError(
            f"--run {run}: {other_kind(run) or 'a file'}; expected the folder of a run; weights in a file are given as "
            "--weights FILE -c CFG"
        )
    config = str(run / "config.yaml") if config is None and run is not None else config
    assert config is not None
    if splits is None:
        return [SplitModel(None, model, config, tuple(overrides))]
    numbers = _numbers(splits)
    if len(numbers) > 1 and PLACE not in str(model):
        name = "--run" if run is not None else "--weights"
        raise UsageError(
            f"{name} {model}: one model for splits {splits} would be tested on videos that it was trained on; expected "
            f"a model for each split, with {PLACE} in place of the number, such as {name} {model}_split{PLACE}"
        )
    return [
        SplitModel(
            number,
            Path(str(model).replace(PLACE, str(number))),
            config.replace(PLACE, str(number)),
            tuple(value.replace(PLACE, str(number)) for value in overrides),
        )
        for number in numbers
    ]


def _numbers(splits: str) -> list[int]:
    parts = [part.strip() for part in splits.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"--splits {splits}: expected numbers of splits, each once, such as 1,2,3")
    return [int(part) for part in parts]


def check_splits(indexes: Sequence[VideoIndex], numbers: Sequence[int]) -> None:
    """Raise DataError unless each of `indexes` holds the split of its number, and no two hold the same split."""
    for place, (index, number) in enumerate(zip(indexes, numbers, strict=True)):
        if index.lists_split is not None and index.lists_split != number:
            raise DataError(
                f"{index.path}: was built from split {index.lists_split} of its lists, expected split {number}; build "
                f"it with: r3d-fast data index ROOT --lists LISTS --split {number} --index FILE, and set data.index to "
                "that file"
            )
        for other in indexes[:place]:
            if other.digest == index.digest:
                raise DataError(
                    f"{index.path}: holds the same split as {other.path}, so the mean would count it twice; expected "
                    f"an index for each split (data.index, with {PLACE} in place of the number)"
                )


def mean_of_splits(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, least and largest top1 and top5 (fractions) of clips and of videos; each split has the same weight."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, result in (("clip", lambda e: e.clip), ("video", lambda e: e.video)):
        figures[kind] = {name: _spread(evaluations, result, name) for name in ("top1", "top5")}
    return figures


def _spread(evaluations: Sequence[Evaluation], result: Callable[[Evaluation], Any], name: str) -> dict[str, float]:
    values = [float(result(evaluation)[name]) for evaluation in evaluations if result(evaluation)[name] is not None]
    if len(values) != len(evaluations):
        raise DataError("in one of the splits no clip could be read, so there is no mean; index its videos again")
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}

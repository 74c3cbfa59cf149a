"""Evaluates a model: loss, top1 and top5 over clips and over videos.

The figures are exact over the videos that could be read, and how many could not be read is reported with them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.index.video_index import VideoIndex
from pipelines.loader import BadClip, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.backend.feed import DeviceBatch, feeding
from r3d_fast.backend.memory import run_batch
from r3d_fast.backend.paddle import choose_device
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config
from r3d_fast.console import tell
from r3d_fast.errors import CheckpointError
from r3d_fast.loaders import eval_loader, open_index, usual_eval_batch
from r3d_fast.metrics import ClassificationMetrics, Result, VideoScores, class_figures, mean_top1_top5
from r3d_fast.ranks.group import Group, join_group, pack, unpack
from r3d_fast.weights.normalisation import described, same_scale, with_scale_of
from r3d_fast.weights.stored_model import RestoredModel, restore

MANY_CLASSES = 200  # from here on files have the cells of the confusion that are not 0 in place of the whole matrix
OnBatch = Callable[[int, int], None]
OnClips = Callable[[DeviceBatch, int], None]


@dataclass(frozen=True)
class EvaluatedClips:
    """Which clips were evaluated: clips of `videos` (numbers in `index`), those of `split` (None: of all splits)."""

    index: VideoIndex
    split: str | None
    videos: tuple[int, ...]
    clip: ClipSpec
    augment: AugmentSpec

    def __str__(self) -> str:
        """The split in words."""
        lists = "" if self.index.lists_split is None else f", split {self.index.lists_split} of its lists"
        return f"split {self.split or '(all)'} of {self.index.kind}{lists}"

    @property
    def means_top1_and_top5(self) -> bool:
        """Whether it is usual to report the mean of top1 and top5 of this data set."""
        return str(self.index.kind).startswith(("kinetics", "activitynet"))

    def protocol(self) -> str:
        """The protocol in words: clips of each video, frames of each clip, crops."""
        clip, augment = self.clip, self.augment
        count = {
            1: "1 clip a video", "all": "all non-overlapping clips of a video",
            "paper": "all non-overlapping clips of a video, but none of its last frame alone",
        }  # fmt: skip
        kind = {"segments": "one out of each part of the video", "consecutive": f"{clip.stride} apart"}[clip.sampling]
        crops = {1: "centre crop", 3: "3 crops", 10: "10 crops"}[augment.eval_crops]
        return (
            f"{count.get(clip.views, f'{clip.views} clips a video')}, {clip.num_frames} frames each, {kind}; "
            f"{crops} of {augment.size_px} px"
        )


@dataclass(frozen=True)
class Evaluation:
    """The figures of clips and of videos, and the clips that could not be read.

    The probabilities of a video are the mean of the softmax of its clips. All ranks of a group have the same figures.
    `scores` holds all videos on the first rank, and only the rank's own videos on the others.
    """

    clip: Result
    video: Result
    scores: VideoScores
    bad: tuple[BadClip, ...]
    source: EvaluatedClips

    @property
    def num_videos(self) -> int:
        """The number of videos in the split, readable or not."""
        return len(self.source.videos)

    @property
    def num_evaluated(self) -> int:
        """The number of videos of which at least one clip was read."""
        return self.video["count"]


def evaluate_model(
    model: Any,
    loader: ClipLoader,
    num_classes: int,
    device: str,
    on_batch: OnBatch | None = None,
    precision: Precision | None = None,
    group: Group | None = None,
    on_clips: OnClips | None = None,
) -> Evaluation:
    """The evaluation of `model` over all clips of `loader`, computed in `precision` (default fp32).

    The model is in the same mode afterwards, training or evaluation. Each rank of `group` evaluates a part of the
    clips, and each clip counts once. `on_batch(done, total)` is called after each batch, and before it
    `on_clips(batch, position)` with the position of the next one. Raises EnvironmentProblem, with the batch size that
    would fit, where the memory runs out.
    """
    from r3d_fast.acceleration.cpu import is_worth_tracing, traced  # imports Paddle
    from r3d_fast.models.classifier import evaluating

    precision, group = precision or Precision(), group or Group()
    clips, videos = ClassificationMetrics(num_classes), VideoScores(num_classes)
    bad: list[BadClip] = []
    forward = model
    if is_worth_tracing(loader.sampler.num_clips // group.count, device, precision):
        forward = traced(model)
    with evaluating(model), closing(feeding(loader.epoch(0), device)) as batches:
        for number, (batch, fed) in enumerate(batches):
            if on_clips is not None:
                on_clips(fed, batch.position)
            rows = _rows_to_compute(batch.is_real, device)
            logits = _logits(forward, fed, rows, num_classes, precision, device, group.count)
            clips.update(logits, batch.labels, batch.is_real)
            videos.update(batch.video_ids, logits, batch.labels, batch.is_real)
            bad += batch.bad
            if on_batch is not None:
                on_batch(number + 1, len(loader))
            group.check()
    clips, of_videos, bad = _pool(clips, videos, bad, group)
    sampler = loader.sampler
    source = EvaluatedClips(
        loader.index, loader.split, tuple(sampler.videos.video_id.tolist()), sampler.clip, sampler.augment
    )
    return Evaluation(clips.result(), of_videos.result(), videos, tuple(bad), source)


def _pool(
    clips: ClassificationMetrics, videos: VideoScores, bad: list[BadClip], group: Group
) -> tuple[ClassificationMetrics, ClassificationMetrics, list[BadClip]]:
    """(figures of clips, figures of videos, bad clips) of all ranks together.

    On the first rank `videos` gets the videos of the other ranks too.
    """
    if group.count == 1:
        return clips, videos.metrics(), bad
    classes = clips.num_classes
    own = [[clip.video_id, clip.reason] for clip in bad]
    for values, arrays in map(unpack, group.gather(pack([clips.state(), own], videos.arrays()))[1:]):
        clips.merge(ClassificationMetrics.of(classes, values[0]))
        videos.merge(VideoScores.of(classes, arrays))
        own += values[1]
    whole = group.from_first(lambda: pack([clips.state(), videos.metrics().state(), sorted(own)], {}))
    of_clips, of_videos, unread = unpack(whole)[0]
    return (
        ClassificationMetrics.of(classes, of_clips),
        ClassificationMetrics.of(classes, of_videos),
        [BadClip(video, reason) for video, reason in unread],
    )


def _rows_to_compute(is_real: NDArray[np.bool_], device: str) -> list[slice]:
    """The rows of a batch, in parts that are computed one after the other: a whole batch on a GPU.

    A CPU is no faster with larger parts, and needs more memory. It leaves out the rows that only fill the batch.
    """
    if device != "cpu":
        return [slice(0, len(is_real))]
    end, size = int(np.flatnonzero(is_real)[-1]) + 1 if is_real.any() else 0, usual_eval_batch(device)
    return [slice(first, min(first + size, end)) for first in range(0, end, size)]


def _logits(
    forward: Any, fed: DeviceBatch, parts: list[slice], num_classes: int, precision: Precision, device: str, ranks: int
) -> NDArray[np.float32]:
    """Logits float32 [N, C] of a batch, on the host; those of rows in none of `parts` are 0."""

    def run(clips: Any, rows: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = precision.forward(forward, clips if rows == len(clips) else clips[:rows]).numpy()
        return logits

    every = np.zeros((int(fed.clips.shape[0]), num_classes), np.float32)
    for part in parts:
        clips = fed.clips if part == slice(0, len(every)) else fed.clips[part]
        size = int(clips.shape[0])
        every[part] = run_batch(
            partial(run, clips, size), partial(run, clips), size, device, "eval.batch_size", ranks=ranks
        )
    return every


def evaluate(
    model: str | Path, config: Config | None = None, *, split: str | None = None, on_batch: OnBatch | None = None,
    group: Group | None = None,
) -> tuple[Evaluation, tuple[str, ...]]:  # fmt: skip
    """(evaluation, classes) of `model`: a run, a checkpoint or a weights file.

    The data are those of `config` (default: of the run). `split`: a split of the index (default: data.eval_split).
    Pixels are scaled as the model was trained, even where `config` says otherwise. Processes that were launched as a
    job evaluate a part of the clips each, and all of them read `model`; they join a group here unless `group` is given.
    Raises CheckpointError if the classes of the data set are not those of the model.
    """
    if group is None:
        with join_group(config.train.rank_timeout_seconds) if config else join_group() as group:
            return evaluate(model, config, split=split, on_batch=on_batch, group=group)
    model, device = Path(model), choose_device(config.train.device if config else "auto")
    if config is None:
        restored = restore(model, device)
        config = restored.config
    else:
        restored = restore(model, device, train=config.train, data_format=config.model.data_format)
    clip, augment, loading = config.in_data_format(restored.data_format).eval_specs()
    augment = _on_its_own_scale(augment, restored, group)
    index = open_index(config.data)
    check_classes(restored.classes, index.classes, str(restored.weights), str(index.path))
    group.require_equal(data_set=index.digest, precision=str(restored.precision))
    with eval_loader(
        index, split or config.data.eval_split, clip, augment, loading, device=device,
        dtype=restored.precision.clip_dtype, group=group, max_corrupt_fraction=config.data.max_corrupt_fraction,
    ) as loader:  # fmt: skip
        evaluation = evaluate_model(
            restored.model, loader, len(index.classes), device, on_batch if group.is_first else None,
            restored.precision, group,
        )  # fmt: skip
    return evaluation, index.classes


def _on_its_own_scale(augment: AugmentSpec, restored: RestoredModel, group: Group) -> AugmentSpec:
    """`augment` with the scale of pixels that the weights were trained with; warns where that is another one."""
    own = restored.config.augment
    if same_scale(own, augment):
        return augment
    if group.is_first:
        tell(
            f"warning: {restored.weights}: trained on pixels with {described(own)}; the evaluation uses that, not the "
            f"config's {described(augment)}"
        )
    return with_scale_of(augment, own)


def check_classes(model: tuple[str, ...], data: tuple[str, ...], weights: str, index: str) -> None:
    """Raise CheckpointError if a model's classes are not those of the data set, in the same order."""
    if len(model) != len(data):
        raise CheckpointError(
            f"{weights}: the model has {len(model)} classes, the data set ({index}) has {len(data)}; "
            "evaluate on the data set that it was trained for, or train a new model"
        )
    for number, (mine, theirs) in enumerate(zip(model, data, strict=True)):
        if mine != theirs:
            raise CheckpointError(
                f"{weights}: class {number} is {mine!r} in the model and {theirs!r} in the data set ({index}); "
                "expected the same classes in the same order"
            )


def confusion_cells(result: Result) -> list[list[int]]:
    """[label, prediction, count] of each pair that occurs, in the order of the classes."""
    rows, columns = np.nonzero(result["confusion"])
    return np.stack([rows, columns, result["confusion"][rows, columns]], axis=1).tolist()  # type: ignore[no-any-return]


def _confusion(result: Result) -> dict[str, Any]:
    """The confusion as JSON values: the matrix, and from MANY_CLASSES on the cells that are not 0."""
    if len(result["counts"]) >= MANY_CLASSES:
        return {"confusion_cells": confusion_cells(result)}
    return {"confusion": result["confusion"].tolist()}


def evaluation_json(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """The evaluation as JSON values: figures of clips and videos, of each class, confusion, unreadable clips.

    A figure that is not finite becomes None, as JSON has no NaN.
    """

    def plain(result: Result) -> dict[str, Any]:
        of_classes = class_figures(result)
        return {
            "loss": result["loss"] if result["loss"] is not None and isfinite(result["loss"]) else None,
            **{key: result[key] for key in ("top1", "top5", "count")},
            "mean_top1_top5": mean_top1_top5(result),
            "balanced_accuracy": of_classes.balanced_accuracy,
            "macro_f1": of_classes.macro_f1,
            "majority": of_classes.majority,
            "counts": dict(zip(classes, result["counts"], strict=True)),
            "per_class": dict(zip(classes, result["per_class"], strict=True)),
            "precision": dict(zip(classes, of_classes.precision, strict=True)),
            "f1": dict(zip(classes, of_classes.f1, strict=True)),
        }

    source = evaluation.source
    names = source.index.names()
    return {
        "index": str(source.index.path.absolute()),
        "root": str(source.index.root.absolute()),
        "kind": source.index.kind,
        "lists_split": source.index.lists_split,
        "split": source.split,
        "protocol": source.protocol(),
        "views": source.clip.views,
        "crops": source.augment.eval_crops,
        "clip": plain(evaluation.clip),
        "video": {**plain(evaluation.video), **_confusion(evaluation.video)},
        "videos": evaluation.num_videos,
        "evaluated": evaluation.num_evaluated,
        "bad": [
            {"video_id": clip.video_id, "video": names[clip.video_id], "reason": clip.reason} for clip in evaluation.bad
        ],
    }

"""Evaluates a model: loss, top1 and top5 over clips and over videos.

The figures are exact over the videos that could be read, and how many could not be read is reported with them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.index.video_index import VideoIndex
from pipelines.loader import BadClip, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.backend.feed import DeviceBatch, feeding
from r3d_fast.backend.memory import run_batch
from r3d_fast.backend.paddle import choose_device
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config
from r3d_fast.errors import CheckpointError
from r3d_fast.loaders import eval_loader, open_index
from r3d_fast.metrics import ClassificationMetrics, Result, VideoScores, mean_top1_top5
from r3d_fast.ranks.group import Group, join_group, pack, unpack
from r3d_fast.weights.normalisation import described, same_scale, with_scale_of
from r3d_fast.weights.stored_model import RestoredModel, restore

OnBatch = Callable[[int, int], None]


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
) -> Evaluation:
    """The evaluation of `model` over all clips of `loader`, computed in `precision` (default fp32).

    The model is in the same mode afterwards, training or evaluation. Each rank of `group` evaluates a part of the
    clips, and each clip counts once. `on_batch(done, total)` is called after each batch. Raises EnvironmentProblem,
    with the batch size that would fit, where the memory runs out.
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
            logits = _logits(forward, fed, precision, device, group.count)
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


def _logits(forward: Any, fed: DeviceBatch, precision: Precision, device: str, ranks: int) -> Any:
    """Logits float32 [N, C] of a batch, on the host."""

    def run(clips: Any) -> Any:
        return precision.forward(forward, clips).numpy()

    size = int(fed.clips.shape[0])
    return run_batch(
        lambda: run(fed.clips), lambda rows: run(fed.clips[:rows]), size, device, "eval.batch_size", ranks=ranks
    )


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
        dtype=restored.precision.clip_dtype, group=group,
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
        print(
            f"warning: {restored.weights}: trained on pixels with {described(own)}; the evaluation uses that, not the "
            f"config's {described(augment)}",
            file=sys.stderr,
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


def evaluation_json(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """The evaluation as JSON values: figures of clips and videos, top1 of each class, confusion, unreadable clips."""

    def plain(result: Result) -> dict[str, Any]:
        figures = {key: result[key] for key in ("loss", "top1", "top5", "count")}
        per_class = dict(zip(classes, result["per_class"], strict=True))
        return {**figures, "mean_top1_top5": mean_top1_top5(result), "per_class": per_class}

    source = evaluation.source
    names = source.index.names()
    return {
        "index": str(source.index.path),
        "kind": source.index.kind,
        "lists_split": source.index.lists_split,
        "split": source.split,
        "protocol": source.protocol(),
        "views": source.clip.views,
        "crops": source.augment.eval_crops,
        "clip": plain(evaluation.clip),
        "video": {**plain(evaluation.video), "confusion": np.asarray(evaluation.video["confusion"]).tolist()},
        "videos": evaluation.num_videos,
        "evaluated": evaluation.num_evaluated,
        "bad": [
            {"video_id": clip.video_id, "video": names[clip.video_id], "reason": clip.reason} for clip in evaluation.bad
        ],
    }

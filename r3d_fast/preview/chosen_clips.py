"""Loads a few clips of an index, to be looked at: the first of a training, or an even choice of an evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.sampler import ClipPlan
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast.backend.feed import feed
from r3d_fast.config.sections import TrainSpec
from r3d_fast.learning.mixing import draw_mix
from r3d_fast.loaders import clip_loader
from r3d_fast.preview.shown_clips import ShownClip, mixed_labels, pixels_of, plans_of, rows_to_show, shown_clips


def training_clips(
    index: VideoIndex, split: str, clip: ClipSpec, augment: AugmentSpec, loader: LoaderSpec, train: TrainSpec,
    count: int, *, balanced: bool = False,
) -> list[ShownClip]:  # fmt: skip
    """The first `count` clips of a training with these specs; with mixup or cutmix, `count` clips of its first batch.

    `balanced`: whether an epoch shows all classes equally often. Raises DataError if the index lacks the split.
    """
    mixes = train.mixup_alpha > 0.0 or train.cutmix_alpha > 0.0
    size = min(count, len(index.columns(index.own_split(split))))
    if mixes and isinstance(loader.batch_size, int):  # who is mixed with whom depends on the whole batch
        size = loader.batch_size
    spec = loader.model_copy(update={"batch_size": size, "prefetch": 1, "decoder": "pyav"})
    with clip_loader(
        index, "cpu", "float32", clip=clip, augment=augment, loader=spec, split=split, train=True, balanced=balanced
    ) as clips:  # fmt: skip
        batch = next(clips.epoch(0))
        values, labels = _mixed(batch, train, augment, index) if mixes else _as_they_are(batch, index)
        return _shown([_rows(batch, values, labels, clips, count)], index)


def evaluation_clips(
    index: VideoIndex, split: str, clip: ClipSpec, augment: AugmentSpec, loader: LoaderSpec, count: int
) -> list[ShownClip]:
    """`count` clips of an evaluation with these specs, spread evenly over the split.

    Raises DataError if the index lacks the split.
    """
    spec = loader.model_copy(update={"batch_size": 1, "prefetch": 1, "decoder": "pyav"})
    with clip_loader(
        index, "cpu", "float32", clip=clip, augment=augment, loader=spec, split=split, train=False
    ) as clips:  # fmt: skip
        rows = []
        for number in np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int).tolist():
            batch = next(clips.epoch(0, number))
            values, labels = _as_they_are(batch, index)
            rows.append(_rows(batch, values, labels, clips, 1))
        return _shown(rows, index)


class _Rows(NamedTuple):
    """Rows of a batch: pixels uint8 [N, T, S, S, 3], plans, labels in words, and why videos could not be read."""

    pixels: NDArray[np.uint8]
    plans: list[ClipPlan]
    labels: list[str]
    bad: dict[int, str]


def _rows(batch: Batch, values: NDArray[np.float32], labels: list[str], loader: ClipLoader, count: int) -> _Rows:
    """At most `count` rows of a `batch` of `loader`, given its model inputs and its labels in words."""
    plans = plans_of(loader, batch.epoch, batch.position)
    rows = rows_to_show(plans, count)
    bad = {clip.video_id: clip.reason for clip in batch.bad}
    pixels = pixels_of(values[rows], loader.sampler.augment)
    return _Rows(pixels, [plans[row] for row in rows], [labels[row] for row in rows], bad)


def _shown(batches: list[_Rows], index: VideoIndex) -> list[ShownClip]:
    """The clips of all `batches`."""
    plans = [plan for rows in batches for plan in rows.plans]
    return shown_clips(
        np.concatenate([rows.pixels for rows in batches]), plans, [label for rows in batches for label in rows.labels],
        [index[plan.video_id] for plan in plans], index.root,
        {video: reason for rows in batches for video, reason in rows.bad.items()},
    )  # fmt: skip


def _as_they_are(batch: Batch, index: VideoIndex) -> tuple[NDArray[np.float32], list[str]]:
    """(model inputs float32 [N, ...], labels in words) of a batch in which nothing is mixed."""
    values: NDArray[Any] = np.from_dlpack(batch.clips)
    return values, [index.classes[label] for label in batch.labels]


def _mixed(
    batch: Batch, train: TrainSpec, augment: AugmentSpec, index: VideoIndex
) -> tuple[NDArray[np.float32], list[str]]:
    """(model inputs float32 [N, ...], labels in words) of a batch after mixup or cutmix, as training draws it."""
    mixed = draw_mix(batch, train, augment.size_px).apply(feed(batch, "cpu"), augment.layout == "NTHWC")
    return mixed.clips.numpy(), mixed_labels(mixed, index.classes)

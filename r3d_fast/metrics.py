"""Loss, top1, top5, confusion matrix, and precision, recall and F1 of each class, of clips and of videos.

Sums and counts are kept, and divided only when a result is asked for. So a last batch of 7 videos counts as 7, and
merging the counts of several processes gives the same as a single process. Rows of padding (`is_real` False) are
ignored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError


class Result(TypedDict):
    """Figures of `count` samples; the first three are None where `count` is 0."""

    loss: float | None  # mean cross entropy, in nats
    top1: float | None  # fraction 0..1
    top5: float | None  # fraction 0..1; with fewer than 5 classes, of the top C
    count: int
    counts: list[int]  # samples with each label
    per_class: list[float | None]  # top1 of the samples with each label; None where there is none
    confusion: NDArray[np.int64]  # int64 [C, C]: rows are labels, columns predictions


def mean_top1_top5(result: Result) -> float | None:
    """The mean of top1 and top5 (fraction), by which the challenges of Kinetics are decided; None without samples."""
    top1, top5 = result["top1"], result["top5"]
    return None if top1 is None or top5 is None else (top1 + top5) / 2


@dataclass(frozen=True)
class ClassFigures:
    """How well each class is recognised, and what the classes give together; all are fractions 0..1.

    `recall` of a class: the share of its samples that were predicted as it; None where it has no sample. `precision`:
    the share of what was predicted as the class that is of it; None where nothing was. `f1`: their harmonic mean; None
    where the class has no sample and was never predicted. `balanced_accuracy` is the mean recall of the classes that
    have samples, `macro_f1` the mean F1, both as in scikit-learn. `majority` is the top1 of a model that always
    predicts the class with the most of these samples. These three are None without samples.
    """

    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    balanced_accuracy: float | None
    macro_f1: float | None
    majority: float | None


def class_figures(result: Result) -> ClassFigures:
    """The figures of each class in `result`. A sample that has no prediction counts as a miss of its class."""
    counts, confusion = np.array(result["counts"], np.int64), result["confusion"]
    hits, predicted = confusion.diagonal(), confusion.sum(axis=0)

    def shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> tuple[float | None, ...]:
        return tuple(p / w if w else None for p, w in zip(parts.tolist(), wholes.tolist(), strict=True))

    recall, f1 = shares(hits, counts), shares(2 * hits, counts + predicted)
    largest = float(counts.max()) / result["count"] if result["count"] else None
    return ClassFigures(shares(hits, predicted), recall, f1, _mean(recall), _mean(f1) if largest else None, largest)


def _mean(values: tuple[float | None, ...]) -> float | None:
    """The mean of those of `values` that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class ClassificationMetrics:
    """Counts over any number of batches how often a classifier is right.

    The rank of a label is the number of classes with a greater logit, plus those with the same logit and a lower index.
    So of equal logits the lowest index wins, as with `argmax`, and a model with equal logits for all classes is not
    always right. A row with NaN or +inf has no softmax: it counts as wrong, has no prediction in the confusion matrix,
    and makes the loss NaN.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise UsageError(f"num_classes {num_classes}: expected at least 1")
        self.num_classes = num_classes
        self._loss = 0.0
        self._top5 = 0
        self._seen = np.zeros(num_classes, dtype=np.int64)
        # (label, prediction): count. Of many classes few pairs occur, and a matrix of 10,000 would take 800 MB.
        self._cells: Counter[tuple[int, int]] = Counter()

    def update(self, logits: NDArray[Any], labels: NDArray[Any], is_real: NDArray[np.bool_]) -> None:
        """Count one batch: logits float32 [N, C], labels int64 [N], is_real bool [N] (False: padding).

        Raises UsageError if the shapes don't fit, or if the label of a real row isn't 0..C-1.
        """
        logits, labels = _real_rows(self.num_classes, logits, labels, is_real)
        log_probs = _log_softmax(logits)
        self._count(logits, -log_probs[np.arange(len(labels)), labels], labels)

    def merge(self, other: ClassificationMetrics) -> None:
        """Add the counts of `other`. Raises UsageError if it has another number of classes."""
        _check_same_classes(self.num_classes, other.num_classes)
        self._loss += other._loss
        self._top5 += other._top5
        self._seen += other._seen
        self._cells.update(other._cells)

    def state(self) -> dict[str, Any]:
        """All counts as JSON values, which `of` turns into metrics again. Counts of 0 are left out."""
        labels = np.flatnonzero(self._seen)
        cells = sorted(self._cells.items())
        return {
            "loss": self._loss,
            "top5": self._top5,
            "seen": [labels.tolist(), self._seen[labels].tolist()],
            "confusion": [list(part) for part in zip(*((*pair, n) for pair, n in cells), strict=True)] or [[], [], []],
        }

    @classmethod
    def of(cls, num_classes: int, state: dict[str, Any]) -> ClassificationMetrics:
        """The metrics whose `state()` gave `state`."""
        metrics = cls(num_classes)
        metrics._loss, metrics._top5 = float(state["loss"]), int(state["top5"])
        labels, counts = state["seen"]
        metrics._seen[np.array(labels, int)] = counts
        rows, columns, cells = state["confusion"]
        metrics._cells = Counter(dict(zip(zip(rows, columns, strict=True), cells, strict=True)))
        return metrics

    def result(self) -> Result:
        """The figures of everything counted so far; see `Result`."""
        count = int(self._seen.sum())
        confusion = np.zeros((self.num_classes, self.num_classes), np.int64)  # takes memory where it is written to
        for cell, number in self._cells.items():
            confusion[cell] = number
        correct = confusion.diagonal()
        return {
            "loss": self._loss / count if count else None,
            "top1": int(correct.sum()) / count if count else None,
            "top5": self._top5 / count if count else None,
            "count": count,
            "counts": self._seen.tolist(),
            "per_class": [int(c) / int(n) if n else None for c, n in zip(correct, self._seen, strict=True)],
            "confusion": confusion,
        }

    def _count(self, scores: NDArray[np.float64], losses: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        """Count N rows: scores float64 [N, C], used only to sort the classes, and losses float64 [N]."""
        valid = ~np.isnan(losses)
        own = scores[np.arange(len(labels)), labels][:, None]
        lower_index = np.arange(self.num_classes) < labels[:, None]
        with np.errstate(invalid="ignore"):  # on some processors a comparison with NaN warns
            rank = ((scores > own) | ((scores == own) & lower_index)).sum(axis=1)
        self._loss += float(losses.sum())
        self._top5 += int(((rank < 5) & valid).sum())
        np.add.at(self._seen, labels, 1)
        self._cells.update(zip(labels[valid].tolist(), scores[valid].argmax(axis=1).tolist(), strict=True))


class VideoScores:
    """Averages the softmax of a video's clips (Hara et al. 2018, arXiv:1711.09577), and counts how often that is right.

    The accuracy of videos is not comparable to that of clips, so report both by name. The clips of a video may come in
    any order, in different batches and from different processes.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise UsageError(f"num_classes {num_classes}: expected at least 1")
        self.num_classes = num_classes
        self._labels: dict[int, int] = {}
        self._clips: dict[int, int] = {}
        self._sums: dict[int, NDArray[np.float64]] = {}

    def update(
        self, video_ids: NDArray[Any], logits: NDArray[Any], labels: NDArray[Any], is_real: NDArray[np.bool_]
    ) -> None:
        """Add one batch of clips: video_ids int64 [N], logits float32 [N, C], labels int64 [N], is_real bool [N].

        Raises UsageError if the shapes don't fit, if the label of a real row isn't 0..C-1, or if the clips of a video
        have different labels.
        """
        if np.shape(video_ids) != np.shape(is_real):
            raise UsageError(f"video_ids {np.shape(video_ids)}: expected the shape of is_real, {np.shape(is_real)}")
        logits, labels = _real_rows(self.num_classes, logits, labels, is_real)
        ids = np.asarray(video_ids)[np.asarray(is_real, dtype=bool)]
        log_probs = _log_softmax(logits)
        for video, label, row in zip(ids.tolist(), labels.tolist(), log_probs, strict=True):
            self._add(video, label, 1, row)

    def merge(self, other: VideoScores) -> None:
        """Add the clips of `other`; a video in both is averaged over all its clips. Raises UsageError like `update`."""
        _check_same_classes(self.num_classes, other.num_classes)
        for video, label in other._labels.items():
            self._add(video, label, other._clips[video], other._sums[video])

    def predictions(self) -> list[tuple[int, int, NDArray[np.float64]]]:
        """(video id, label, mean softmax float64 [C]) of each video, in the order of the ids."""
        return [(v, self._labels[v], np.exp(self._log_mean(v))) for v in sorted(self._labels)]

    def clip_counts(self) -> dict[int, int]:
        """The number of clips of each video, by its id."""
        return dict(self._clips)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The sums of V videos, which `of` turns into scores again.

        videos, labels and clips (how many of each video) int64 [V]; log_sums float64 [V, C], the log of the summed
        softmax.
        """
        videos = list(self._labels)
        return {
            "videos": np.array(videos, np.int64),
            "labels": np.array([self._labels[v] for v in videos], np.int64),
            "clips": np.array([self._clips[v] for v in videos], np.int64),
            "log_sums": np.array([self._sums[v] for v in videos], np.float64).reshape(len(videos), self.num_classes),
        }

    @classmethod
    def of(cls, num_classes: int, arrays: dict[str, NDArray[Any]]) -> VideoScores:
        """The scores whose `arrays()` gave `arrays`."""
        scores = cls(num_classes)
        columns = (arrays[name].tolist() for name in ("videos", "labels", "clips"))
        for video, label, clips, log_sum in zip(*columns, arrays["log_sums"], strict=True):
            scores._add(video, label, clips, log_sum)
        return scores

    def result(self) -> Result:
        """The figures of all videos; the loss of a video is -log of the mean softmax of its label."""
        return self.metrics().result()

    def metrics(self) -> ClassificationMetrics:
        """The ClassificationMetrics of the videos, each counted once by its mean softmax."""
        metrics = ClassificationMetrics(self.num_classes)
        if self._labels:
            labels = np.array(list(self._labels.values()), dtype=np.int64)
            scores = np.stack([self._log_mean(video) for video in self._labels])
            metrics._count(scores, -scores[np.arange(len(labels)), labels], labels)
        return metrics

    def _log_mean(self, video: int) -> NDArray[np.float64]:
        """Log of the mean softmax of a video's clips, float64 [C]; the softmax itself may be too small for a float."""
        log_mean: NDArray[np.float64] = self._sums[video] - np.log(self._clips[video])
        return log_mean

    def _add(self, video: int, label: int, clips: int, log_sum: NDArray[np.float64]) -> None:
        """Add `clips` clips of a video, given the log of the sum of their softmax, float64 [C]."""
        if self._labels.setdefault(video, label) != label:
            raise UsageError(
                f"video {video} came with labels {self._labels[video]} and {label}; expected one label a video"
            )
        self._clips[video] = self._clips.get(video, 0) + clips
        # This makes a new array each time, because the row may be a view of a batch or belong to another VideoScores.
        with np.errstate(invalid="ignore"):  # a clip without softmax makes its video NaN
            self._sums[video] = np.logaddexp(self._sums.get(video, -np.inf), log_sum)


def _real_rows(
    num_classes: int, logits: NDArray[Any], labels: NDArray[Any], is_real: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits float64 [M, C] and labels int64 [M] of the M rows that are not padding. Raises UsageError."""
    shapes = np.shape(logits), np.shape(labels), np.shape(is_real)
    rows = np.size(is_real)
    if shapes != ((rows, num_classes), (rows,), (rows,)):
        raise UsageError(
            f"logits, labels and is_real have shapes {shapes[0]}, {shapes[1]}, {shapes[2]}; "
            f"expected (N, {num_classes}), (N,), (N,)"
        )
    real = np.asarray(is_real, dtype=bool)
    kept = np.asarray(labels)[real].astype(np.int64)
    outside = kept[(kept < 0) | (kept >= num_classes)]
    if outside.size:
        raise UsageError(f"label {outside[0]}: expected 0..{num_classes - 1}")
    return np.asarray(logits)[real].astype(np.float64), kept


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities float64 [C] of the logits [C] of one clip; all are NaN if a logit is NaN or +inf."""
    probabilities: NDArray[np.float64] = np.exp(_log_softmax(np.asarray(logits, np.float64)[None])[0])
    return probabilities


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the softmax, float64 [N, C]: finite for finite logits, and all NaN in a row with NaN or +inf."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def _check_same_classes(ours: int, theirs: int) -> None:
    if ours != theirs:
        raise UsageError(f"can't merge figures of {theirs} classes into those of {ours}: expected the same number")

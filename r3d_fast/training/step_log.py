"""Steps that were taken, read from the device once they are to be reported: metrics, progress, and whether all is lost.

On a CPU that is after each step. On a GPU the host runs ahead of it and reads once per `train.log_every_steps`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import record_event
from r3d_fast.config.config import Config
from r3d_fast.errors import DivergedError
from r3d_fast.metrics import ClassificationMetrics
from r3d_fast.ranks.group import Group
from r3d_fast.runs.outputs import Outputs, Silent
from r3d_fast.training.state import RunState
from r3d_fast.training.step import StepResult

_MAX_BAD_STEPS = 20  # losses in a row that are no numbers, after which nothing will mend the run


@dataclass
class _Taken:
    """A step: its batches (results, labels, real rows), their videos; its number, rate and result once it is whole."""

    batches: list[tuple[StepResult, NDArray[np.int64], NDArray[np.bool_]]] = field(default_factory=list)
    videos: list[int] = field(default_factory=list)
    number: int = 0
    rate: float = 0.0

    @property
    def result(self) -> StepResult:
        """Of the whole step."""
        return self.batches[-1][0]


class StepLog:
    """Takes each batch of an epoch (`waited`, `add`, and `whole` with the last of a step); `read` reports them."""

    def __init__(self, config: Config, index: VideoIndex, device: str, group: Group) -> None:
        self._spec, self._index, self._classes = config.train, index, len(index.classes)
        self._device, self._group = device, group
        self._not_numbers = 0
        self.begin()

    def begin(self) -> None:
        """Begin an epoch, or the rest of one."""
        self.seconds_waited = 0.0
        self._seen = ClassificationMetrics(self._classes)
        self._epoch_start = self._interval_start = self._read_at = time.monotonic()
        self._interval_clips, self._interval_wait = 0, 0.0
        self._pending: list[_Taken] = []
        self._now = _Taken()

    @property
    def seconds(self) -> float:
        """Since the epoch began."""
        return time.monotonic() - self._epoch_start

    def waited(self, seconds: float) -> None:
        """Count time in which training waited for a batch."""
        self.seconds_waited += seconds
        self._interval_wait += seconds

    def add(
        self, result: StepResult, labels: NDArray[np.int64], is_real: NDArray[np.bool_], videos: Sequence[int]
    ) -> None:
        """Take the result of a batch: labels int64 [N], is_real bool [N], the numbers of its videos."""
        self._now.batches.append((result, labels, is_real))
        self._now.videos += videos
        self._interval_clips += len(labels) * self._group.count

    def whole(self, step: int, rate: float) -> None:
        """The last batch ended step number `step` (from 1), taken at the learning rate `rate`."""
        self._now.number, self._now.rate = step, rate
        self._pending.append(self._now)
        self._now = _Taken()

    @property
    def has_unread(self) -> bool:
        """Whether there are whole steps that were not read."""
        return bool(self._pending)

    def is_due(self, step: int) -> bool:
        """Whether what was taken is to be read after step number `step`."""
        return self._device == "cpu" or step % self._spec.log_every_steps == 0

    def read(self, state: RunState, out: Outputs | Silent) -> None:
        """Report every whole step: a record and progress each; skipped ones are counted in `state`, their videos named.

        Called by all ranks alike. Raises DivergedError, naming videos, after 20 steps in a row without numbers.
        """
        if not self._pending:
            return
        if self._device == "gpu":
            self._group.wait(record_event())
        pending, self._pending = self._pending, []
        figures = self._group.merge([self._counted(taken) for taken in pending])
        now = time.monotonic()
        passed, seconds = now - self._interval_start, (now - self._read_at) / len(pending)
        speed, share = self._interval_clips / passed, self._interval_wait / passed
        self._read_at = now
        for taken, metrics in zip(pending, figures, strict=True):
            result, one = taken.result, metrics.result()
            names = {} if result.applied else {"videos": self._names(taken)}
            state.skipped += not result.applied
            self._seen.merge(metrics)
            so_far = self._seen.result()
            out.log({
                "kind": "train", "epoch": state.epoch + 1, "step": taken.number, "loss": result.loss,
                "top1": one["top1"], "lr": taken.rate, "clips_per_second": speed, "wait_share": share,
                "count": one["count"], "seconds": seconds, "skipped": state.skipped, "loss_scale": result.loss_scale,
                "grad_norm": result.grad_norm, **names,
            })  # fmt: skip
            out.step(
                f"epoch {state.epoch + 1}/{self._spec.epochs}  loss {so_far['loss'] or 0:.3f}  "
                f"top1 {100 * (so_far['top1'] or 0):.1f} %  {speed:.1f} clips/s  data {100 * share:.0f} %"
            )
            if taken.number % self._spec.log_every_steps == 0:
                self._interval_start, self._interval_clips, self._interval_wait = now, 0, 0.0
            self._check(taken, names.get("videos", []))

    def _names(self, taken: _Taken) -> list[str]:
        """The videos of a step on all ranks, by the paths in the index."""
        return [self._index[video].path for part in self._group.exchange(taken.videos) for video in part]

    def _counted(self, taken: _Taken) -> ClassificationMetrics:
        metrics = ClassificationMetrics(self._classes)
        for result, labels, is_real in taken.batches:
            metrics.update(result.logits, labels, is_real)
        return metrics

    def _check(self, taken: _Taken, videos: list[str]) -> None:
        if taken.result.applied:
            self._not_numbers = 0
        elif taken.result.is_hopeless:
            self._not_numbers += 1
        if self._not_numbers == _MAX_BAD_STEPS:
            raise DivergedError(
                f"the loss or its gradients were not a number in {self._not_numbers} steps in a row (step "
                f"{taken.number}, videos {', '.join(videos[:4])}, ...; metrics.jsonl has those of each); "
                "lower optimizer.lr or warm up"
            )

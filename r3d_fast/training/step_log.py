"""Reports steps and evaluations in metrics.jsonl and in the progress; ends a run whose loss is NaN in every step.

On a CPU each step is reported as soon as it is taken. On a GPU the host runs ahead: it reads what the steps gave only
once in `train.log_every_steps` steps or `train.log_every_seconds`, because reading waits for the GPU.
"""

from __future__ import annotations

import time

from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import record_event
from r3d_fast.config.sections import TrainSpec
from r3d_fast.console import counted
from r3d_fast.errors import DivergedError
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.learning.step import StepResult
from r3d_fast.metrics import ClassificationMetrics
from r3d_fast.ranks.group import Group
from r3d_fast.runs.writer import RunWriter
from r3d_fast.training.epoch import TakenStep
from r3d_fast.training.state import RunState

_MAX_BAD_STEPS = 20  # steps in a row with a NaN or infinite loss; after so many the run does not recover


class StepLog:
    """Reports an epoch: `begin` it, `add` each step, `read` those that were added when it is due; then `evaluated`."""

    def __init__(self, spec: TrainSpec, index: VideoIndex, device: str, group: Group) -> None:
        self._spec, self._index, self._classes = spec, index, len(index.classes)
        self._device, self._group = device, group
        self._not_numbers = 0
        self.io_retries = 0  # how often the loaders of all ranks have read a file again after an error of the system
        self._read_seconds = 0.0  # the run's time when steps were read last
        self.begin()

    def begin(self, *, is_whole: bool = True) -> None:
        """Begin an epoch, or with `is_whole` False the rest of one that another process began."""
        self._is_whole = is_whole
        self._epoch_wait = 0.0
        self._seen = ClassificationMetrics(self._classes)
        self._epoch_start = self._read_at = time.monotonic()
        self._unread_wait = 0.0  # seconds for which the steps that are not read yet waited for clips
        self._pending: list[tuple[int, TakenStep]] = []

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began."""
        return time.monotonic() - self._epoch_start

    def add(self, number: int, step: TakenStep) -> None:
        """Take `step`, which is the run's step `number` (from 1)."""
        self._pending.append((number, step))
        self._epoch_wait += step.seconds_waited
        self._unread_wait += step.seconds_waited

    @property
    def has_unread(self) -> bool:
        """Whether there are steps that were not read."""
        return bool(self._pending)

    def is_due(self, state: RunState) -> bool:
        """Whether steps are to be read where the run is at `state`; the same on all ranks."""
        is_late = state.seconds - self._read_seconds >= self._spec.log_every_seconds
        return self._device == "cpu" or state.step % self._spec.log_every_steps == 0 or is_late

    def read(self, state: RunState, writer: RunWriter) -> None:
        """Report each step that was added, as a record of metrics and in the progress.

        A record's speed and share of waiting are those of its step; of steps that are read together, those of them all.
        The progress shows means of the epoch so far.
        Skipped steps are counted in `state`, and their videos named. All ranks call this alike. Raises DivergedError,
        which names videos, after 20 steps in a row whose loss or gradients are not numbers.
        """
        if not self._pending:
            return
        if self._device == "gpu":
            self._group.wait(record_event())
        pending, self._pending, self._read_seconds = self._pending, [], state.seconds
        figures = self._group.merge([self._counted(step) for _, step in pending])
        results = [metrics.result() for metrics in figures]
        now = time.monotonic()
        passed, seconds = now - self._read_at, (now - self._read_at) / len(pending)
        speed, share = sum(one["count"] for one in results) / passed, self._unread_wait / passed
        self._read_at, self._unread_wait, epoch = now, 0.0, now - self._epoch_start
        for (number, step), metrics, one in zip(pending, figures, results, strict=True):
            result = step.result
            names = {} if result.applied else {"videos": self._names(step)}
            state.skipped += not result.applied
            self._seen.merge(metrics)
            so_far = self._seen.result()
            writer.log({
                "kind": "train", "epoch": state.epoch + 1, "step": number, "loss": result.loss,
                "top1": one["top1"], "lr": step.rate, "clips_per_second": speed, "wait_share": share,
                "count": one["count"], "seconds": seconds, "skipped": state.skipped, "loss_scale": result.loss_scale,
                "grad_norm": result.grad_norm, "io_retries": self.io_retries, **names,
            })  # fmt: skip
            writer.step(
                f"epoch {state.epoch + 1}/{self._spec.epochs}  loss {so_far['loss'] or 0:.3f}  "
                f"top1 {100 * (so_far['top1'] or 0):.1f} %  "
                f"{so_far['count'] / epoch:.1f} clips/s  data {100 * self._epoch_wait / epoch:.0f} %"
                + (f"  {counted(self.io_retries, 'read')} tried again" if self.io_retries else "")
            )
            self._check(number, result, names.get("videos", []))

    def evaluated(
        self, evaluation: Evaluation, state: RunState, writer: RunWriter, train_seconds: float, eval_seconds: float
    ) -> None:
        """Report an evaluation, which took `eval_seconds`, after an epoch that was trained for `train_seconds`."""
        figures = evaluation.video
        writer.log({
            "kind": "eval", "epoch": state.epoch + 1, "step": state.step, "loss": figures["loss"],
            "top1": figures["top1"], "top5": figures["top5"], "clip_loss": evaluation.clip["loss"],
            "count": figures["count"], "seconds": eval_seconds,
        })  # fmt: skip
        missing = evaluation.num_videos - evaluation.num_evaluated
        loss = f"loss {figures['loss']:.4f}"
        if evaluation.clip["count"] != figures["count"]:
            loss += f", of clips {evaluation.clip['loss']:.4f}"
        trained = ""
        if self._is_whole:  # else another process, which began the epoch, knows the rest of the time
            waited = 100 * self._epoch_wait / max(train_seconds, 1e-9)
            trained = f"trained {train_seconds:.0f} s, waited for data {waited:.0f} %, "
        writer.say(
            f"epoch {state.epoch + 1}: {evaluation.source.split} top1 {100 * (figures['top1'] or 0):.2f} %  {loss}  "
            f"({counted(figures['count'], 'video')}{f', {missing} unreadable' if missing else ''})  "
            f"{trained}evaluated {eval_seconds:.0f} s"
        )

    def _names(self, step: TakenStep) -> list[str]:
        """The videos of a step on all ranks, by the paths in the index."""
        return [self._index[video].path for part in self._group.exchange(step.videos) for video in part]

    def _counted(self, step: TakenStep) -> ClassificationMetrics:
        metrics = ClassificationMetrics(self._classes)
        for batch in step.batches:
            metrics.update(batch.result.logits, batch.labels, batch.is_real)
        return metrics

    def _check(self, number: int, result: StepResult, videos: list[str]) -> None:
        if result.applied:
            self._not_numbers = 0
        elif result.is_hopeless:
            self._not_numbers += 1
        if self._not_numbers == _MAX_BAD_STEPS:
            raise DivergedError(
                f"the loss or its gradients were NaN or infinite in {self._not_numbers} steps in a row, up to step "
                f"{number} (videos {', '.join(videos[:4])}, ...; metrics.jsonl names the videos of each step); lower "
                "optimizer.lr, or set schedule.warmup_epochs"
            )

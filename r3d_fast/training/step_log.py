"""Reports steps and evaluations in metrics.jsonl and in the progress; ends a run whose loss is NaN in every step.

On a CPU each step is reported as soon as it is taken. On a GPU the host runs ahead: it reads what the steps gave only
once in `train.log_every_steps` steps, because reading waits for the GPU.
"""

from __future__ import annotations

import time

from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import record_event
from r3d_fast.config.sections import TrainSpec
from r3d_fast.errors import DivergedError
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.metrics import ClassificationMetrics
from r3d_fast.ranks.group import Group
from r3d_fast.runs.writer import RunWriter
from r3d_fast.training.epoch import TakenStep
from r3d_fast.training.state import RunState
from r3d_fast.training.step import StepResult

_MAX_BAD_STEPS = 20  # steps in a row with a NaN or infinite loss; after so many the run does not recover


class StepLog:
    """Reports an epoch: `begin` it, `add` each step, `read` those that were added when it is due; then `evaluated`."""

    def __init__(self, spec: TrainSpec, index: VideoIndex, device: str, group: Group) -> None:
        self._spec, self._index, self._classes = spec, index, len(index.classes)
        self._device, self._group = device, group
        self._not_numbers = 0
        self.begin()

    def begin(self) -> None:
        """Begin an epoch, or the rest of one."""
        self._epoch_wait = 0.0
        self._seen = ClassificationMetrics(self._classes)
        self._epoch_start = self._interval_start = self._read_at = time.monotonic()
        self._interval_clips, self._interval_wait = 0, 0.0
        self._pending: list[tuple[int, TakenStep]] = []

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began."""
        return time.monotonic() - self._epoch_start

    def add(self, number: int, step: TakenStep) -> None:
        """Take `step`, which is the run's step `number` (from 1)."""
        self._pending.append((number, step))
        self._epoch_wait += step.seconds_waited
        self._interval_wait += step.seconds_waited
        self._interval_clips += sum(len(batch.labels) for batch in step.batches) * self._group.count

    @property
    def has_unread(self) -> bool:
        """Whether there are steps that were not read."""
        return bool(self._pending)

    def is_due(self, step: int) -> bool:
        """Whether steps are to be read after step number `step`."""
        return self._device == "cpu" or step % self._spec.log_every_steps == 0

    def read(self, state: RunState, writer: RunWriter) -> None:
        """Report each step that was added, as a record of metrics and in the progress.

        Skipped steps are counted in `state`, and their videos named. All ranks call this alike. Raises DivergedError,
        which names videos, after 20 steps in a row whose loss or gradients are not numbers.
        """
        if not self._pending:
            return
        if self._device == "gpu":
            self._group.wait(record_event())
        pending, self._pending = self._pending, []
        figures = self._group.merge([self._counted(step) for _, step in pending])
        now = time.monotonic()
        passed, seconds = now - self._interval_start, (now - self._read_at) / len(pending)
        speed, share = self._interval_clips / passed, self._interval_wait / passed
        self._read_at = now
        for (number, step), metrics in zip(pending, figures, strict=True):
            result, one = step.result, metrics.result()
            names = {} if result.applied else {"videos": self._names(step)}
            state.skipped += not result.applied
            self._seen.merge(metrics)
            so_far = self._seen.result()
            writer.log({
                "kind": "train", "epoch": state.epoch + 1, "step": number, "loss": result.loss,
                "top1": one["top1"], "lr": step.rate, "clips_per_second": speed, "wait_share": share,
                "count": one["count"], "seconds": seconds, "skipped": state.skipped, "loss_scale": result.loss_scale,
                "grad_norm": result.grad_norm, **names,
            })  # fmt: skip
            writer.step(
                f"epoch {state.epoch + 1}/{self._spec.epochs}  loss {so_far['loss'] or 0:.3f}  "
                f"top1 {100 * (so_far['top1'] or 0):.1f} %  {speed:.1f} clips/s  data {100 * share:.0f} %"
            )
            if number % self._spec.log_every_steps == 0:
                self._interval_start, self._interval_clips, self._interval_wait = now, 0, 0.0
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
        waited = 100 * self._epoch_wait / max(train_seconds, 1e-9)
        writer.say(
            f"epoch {state.epoch + 1}: test top1 {100 * (figures['top1'] or 0):.2f} %  {loss}  "
            f"({figures['count']} videos{f', {missing} unreadable' if missing else ''})  "
            f"trained {train_seconds:.0f} s, waited for data {waited:.0f} %, evaluated {eval_seconds:.0f} s"
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

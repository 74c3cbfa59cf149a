"""The loop of a run: `Trainer.train_to_end` trains epoch after epoch, evaluates, and writes checkpoints.

A checkpoint is written every `train.checkpoint_every_steps` steps, every `train.checkpoint_every_minutes` minutes,
before an evaluation, after one that is the best, at the end of an epoch, and before the run stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipelines.errors import DataError, EnvironmentProblem, R3DFastError
from pipelines.index.locations import rebuild_command
from pipelines.loader import BadClip, Batch, ClipLoader
from r3d_fast.backend.feed import DeviceBatch, feeding
from r3d_fast.config.config import Config
from r3d_fast.console import quoted
from r3d_fast.errors import CheckpointError, RankFailed, RankLost, Stopped
from r3d_fast.learning.learner import Learner
from r3d_fast.learning.mixing import draw_mix
from r3d_fast.learning.schedule import learning_rate
from r3d_fast.learning.step import StepResult
from r3d_fast.preview.first_clips import FirstClips
from r3d_fast.ranks.group import Group, News
from r3d_fast.runs.fold_results import resume_command
from r3d_fast.runs.writer import RunWriter
from r3d_fast.training.epoch import EpochPlan, TakenStep, steps_of_epoch
from r3d_fast.training.forecast import Forecast
from r3d_fast.training.outcome import keep_evaluation
from r3d_fast.training.state import Due, RunClock, RunState, due_after
from r3d_fast.training.step_log import StepLog
from r3d_fast.weights.checkpoint import FORMAT, Checkpoint
from r3d_fast.weights.clip_seconds import median_clip_seconds

OnBatch = Callable[[Batch], None]


class Trainer:
    """A run in progress. `state` says where it is; `learner` has the model and all that is learned with it."""

    def __init__(
        self, config: Config, run: Path, clips: ClipLoader, eval_clips: ClipLoader, plan: EpochPlan, learner: Learner,
        state: RunState, forecast: Forecast, writer: RunWriter, group: Group, stopping: Callable[[], bool],
        on_batch: OnBatch | None,
    ) -> None:  # fmt: skip
        """`clips` are trained on and `eval_clips` evaluated; `stopping` says whether a signal asks the run to stop."""
        self.config, self.spec, self.run = config, config.train, run
        self.clips, self.eval_clips, self.plan = clips, eval_clips, plan
        self.learner, self.state, self.forecast, self.writer = learner, state, forecast, writer
        self.group, self.stopping, self.on_batch = group, stopping, on_batch
        self.log = StepLog(config.train, clips.index, learner.device, group)
        self.clock = RunClock(state.seconds)
        self.first_clips = FirstClips(run if group.is_first else None, writer.say)
        self._is_new = state.step == 0  # whether there is no checkpoint yet
        self._has_learned = False  # from a clip that could be read, since this process began
        self._unreadable: dict[int, str] = {}  # why, by the number of the video
        self._is_routing_known = False
        self._clip_seconds = median_clip_seconds(clips.index, clips.split, clips.sampler.clip)

    def train_to_end(self) -> None:
        """Train epoch after epoch until the run ends. Raises Stopped where a signal ends this process before."""
        state = self.state
        while state.epoch < self.spec.epochs and not state.early_end(self.spec):
            self._train_epoch()
            self._end_epoch()
        if state.epoch < self.spec.epochs and (why := state.early_end(self.spec)):
            self.writer.say(f"stopped after step {state.step}, epoch {state.epoch + 1}: {why}")
        self.writer.finish()

    def _train_epoch(self) -> None:
        """Take the steps that are left of the epoch, or those until the run has no time left."""
        state, began = self.state, time.monotonic()
        self.log.begin(is_whole=state.position == 0)
        self.forecast.begin_epoch(self.plan.steps_until(state.position))
        steps = steps_of_epoch(
            self._batches(), self.plan, rate=self._learning_rate, learn=self._learn,
            mix=partial(draw_mix, spec=self.spec, size_px=self.config.augment.size_px),
            channels_last=self.clips.sampler.augment.layout == "NTHWC",
        )  # fmt: skip
        for step in steps:
            clips = step.position - state.position  # of all ranks
            state.step, state.position = state.step + 1, step.position
            self.log.add(state.step, step)
            self.forecast.step(time.monotonic() - began)
            began = time.monotonic()
            due = self._due_after(step, clips)
            if due.save or due.end or self.log.is_due(state):
                self.log.read(state, self.writer)
            if (estimate := self.forecast.first_estimate()) is not None:
                self.writer.say(estimate)
            if due.save:
                self._save()
            if due.stop:
                raise self._ended(Stopped(f"stopped by a signal after step {state.step}"))
            if due.end:
                break
        self.log.read(state, self.writer)

    def _end_epoch(self) -> None:
        """Evaluate if that is due, count the epoch, and save. Raises Stopped if a signal came and the run is not over.

        An epoch that `train.max_minutes` ended early is not counted: a run that goes on takes its remaining steps.
        """
        state = self.state
        is_whole = self.plan.ends_epoch(state.position)
        is_last = (is_whole and state.epoch + 1 == self.spec.epochs) or state.early_end(self.spec) is not None
        train_seconds = self.log.seconds
        if is_last or (state.epoch + 1) % self.spec.eval_every_epochs == 0:
            self._save()  # a kill during a long evaluation costs no step
            self._evaluate(is_whole, train_seconds)
        if is_whole:
            state.epoch, state.position = state.epoch + 1, 0
        self._save()
        if self.group.any(self.stopping()) and not is_last:
            raise self._ended(Stopped(f"stopped by a signal after step {state.step}"))

    def _batches(self) -> Iterator[tuple[Batch, DeviceBatch]]:
        """The batches that are left of the epoch, each with its tensors on the model's device."""
        clips = self.clips.epoch(self.state.epoch, self.state.position)
        with closing(feeding(clips, self.learner.device, self.group.wait)) as pairs:
            while (pair := self._next(pairs)) is not None:
                self._tell_routing()
                if self.on_batch is not None:
                    self.on_batch(pair[0])
                yield pair

    def _next(self, pairs: Iterator[tuple[Batch, DeviceBatch]]) -> tuple[Batch, DeviceBatch] | None:
        """The next batch; None at the end. An error of the loader is raised once a checkpoint is written."""
        try:
            return next(pairs, None)
        except R3DFastError as error:
            raise self._saved(error) from error

    def _tell_routing(self) -> None:
        """Report once how the loader decodes clips for a GPU, as soon as the loader knows it."""
        routing = self.clips.routing
        if self.learner.device == "gpu" and routing is not None and not self._is_routing_known:
            self._is_routing_known = True
            self.writer.say(str(routing))
            self.writer.log({"kind": "loader", "step": self.state.step, **asdict(routing)})

    def _learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(
            self.state.step - self.state.skipped, base=self.config.base_rate(self.plan.batches.largest),
            steps_per_epoch=self.plan.steps, epochs=self.spec.epochs, spec=self.config.schedule, falls=self.state.falls,
        )  # fmt: skip

    def _learn(self, batch: DeviceBatch, rate: float, *, last: bool, place: tuple[int, int]) -> StepResult:
        """What the learner gives for a batch; an error after the first step is raised once a checkpoint is written."""
        self.first_clips.of_training(self.clips, batch, *place)
        try:
            return self.learner.step(batch, rate, last=last, place=place)
        except (EnvironmentProblem, RankFailed) as error:
            raise self._saved(error) from error

    def _saved(self, error: R3DFastError, *, on_all: bool = False, more: str = "") -> R3DFastError:
        """The error to raise for `error`, once a checkpoint of the steps before it is written; see `_ended`.

        `on_all`: whether all ranks have it at the same time. `more`: the options that going on needs.
        """
        # Saving would hang in two cases: a GPU may wait for ever for a rank that is lost, and steps that were not read
        # yet can't be read without the other ranks.
        unsaved = isinstance(error, RankLost) or (self.group.count > 1 and self.log.has_unread and not on_all)
        if unsaved or (self._is_new and not self._has_learned):
            return error
        if self._has_learned:  # else no step was taken, or of black clips alone: there is nothing to save
            self.learner.undo_begun_step()
            self._save()
        return self._ended(error, more)

    def _due_after(self, step: TakenStep, clips: int) -> Due:
        """What is due after `step`, of `clips` on all ranks, once the ranks have told each other what happened."""
        is_late = self.clock.is_save_late(self.spec)
        retries = self.clips.statistics.io_retries
        news = self.group.share(News(tuple(step.bad), self.stopping(), is_late, self.clock.seconds, retries))
        self.state.seconds, self.log.io_retries = news.seconds, news.io_retries
        self._has_learned |= len(news.bad) < clips
        self._leave_out(news.bad)
        return due_after(self.state, news, self.spec)

    def _leave_out(self, clips: tuple[BadClip, ...]) -> None:
        """Name the videos of clips that can't be read.

        Raises DataError if they are more than the config allows, once a checkpoint is written.
        """
        bad = self._unreadable
        for clip in clips:
            if clip.video_id not in bad:
                bad[clip.video_id] = clip.reason
                self.writer.say(f"warning: left out: {clip.reason}")
        videos, allowed = len(self.clips.sampler.videos), self.config.data.max_bad_fraction
        if len(bad) > allowed * videos:
            # An index made again may have other videos, with which this run can't go on. More bad ones may follow.
            option = f"-o data.max_bad_fraction={min(100, math.ceil(200 * len(bad) / videos)) / 100:g}"
            index = self.clips.index
            again = quoted(*rebuild_command(index.path, index.root, index.options), "--full")
            is_begun = self._has_learned or not self._is_new
            other = "" if is_begun else f", or index again what is there: {again}"
            error = DataError(
                f"{len(bad)} of {videos} training videos can't be read, more than data.max_bad_fraction {allowed} "
                f"allows; first: {next(iter(bad.values()))}; put them back, or train without them by {option}{other}"
            )
            raise self._saved(error, on_all=True, more=f" {option}")

    def _evaluate(self, is_whole: bool, train_seconds: float) -> None:
        """Evaluate, report the figures, and save the model where it is the best so far.

        `is_whole`: whether the epoch was trained to its end, which took `train_seconds`. Raises Stopped after the batch
        in which a signal comes: a run that goes on evaluates again from the first one.
        """
        state, start = self.state, time.monotonic()
        what = f"epoch {state.epoch + 1}/{self.spec.epochs}  evaluating"

        def on_batch(done: int, total: int) -> None:
            self.forecast.evaluating(done / total, time.monotonic() - start)
            self.writer.note(f"{what} {done}/{total}")
            if self.stopping() and done < total:
                raise self._ended(Stopped(f"stopped by a signal in the evaluation after step {state.step}"))

        self.forecast.begin_evaluation()
        self.writer.note(f"{what} 0/{len(self.eval_clips)}")
        on_clips = partial(self.first_clips.of_evaluation, self.eval_clips)
        evaluation = self.learner.evaluate(self.eval_clips, on_clips, on_batch)
        self.forecast.evaluated()
        is_best = state.note(evaluation, self.config.schedule, whole_epoch=is_whole)
        self.log.evaluated(evaluation, state, self.writer, train_seconds, time.monotonic() - start)
        if is_best:
            self._save(best=True)
            if self.group.is_first:
                keep_evaluation(self.run, evaluation, self.clips.index.classes, state, self.writer.say)

    def _save(self, *, best: bool = False) -> None:
        """Start writing a checkpoint: that of this step, or the best one. All ranks call this, the first writes."""
        self.log.read(self.state, self.writer)
        if self.group.is_first:
            index = self.clips.index
            about = {
                "format": FORMAT, "config": self.config.model_dump(mode="json"), "classes": list(index.classes),
                "clip_seconds": self._clip_seconds, "index_digest": index.digest, "records": self.writer.records,
            }  # fmt: skip
            values = {**about, **vars(self.state), **self.learner.state()}
            self.writer.save(Checkpoint(*self.learner.arrays(), values), best=best)
        if not best:
            self.clock.saved()

    def _ended(self, error: R3DFastError, more: str = "") -> R3DFastError:
        """The error to raise where the run stops early: `error`, with the command that goes on, by the options `more`.

        Waits until all checkpoints are on the disk; CheckpointError where the disk refuses.
        """
        command = resume_command(self.run) + more
        try:
            self.writer.finish()
        except CheckpointError as refused:
            return CheckpointError(f"{error}, and {refused}" if str(error) else str(refused))
        if str(error):
            error.args = (f"{error}; continue with: {command}",)
        return error

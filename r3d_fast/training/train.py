"""Training: `train` opens what a run needs, and `_Trainer.train_to_end` is its loop. Read it from top to bottom.

A run trains on the clips of `train_loader`. A checkpoint is written every `train.checkpoint_every_steps` steps, every
`train.checkpoint_every_minutes` minutes, before an evaluation, after one that is the best, at the end of an epoch, and
before the run stops.

A run ends after `train.epochs` epochs, after `train.early_stop_evals` evaluations without progress, or after
`train.max_minutes` minutes. It stops on a signal or an error, and can go on later with `resume`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, EnvironmentProblem, R3DFastError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import BadClip, Batch, ClipLoader
from r3d_fast.acceleration.layout_trial import Layout, Trial, candidates, stored_layout, try_layouts
from r3d_fast.backend.feed import DeviceBatch, feeding
from r3d_fast.backend.paddle import choose_device
from r3d_fast.backend.precision import Precision, choose_data_format, choose_precision
from r3d_fast.config.config import Config
from r3d_fast.console import tell
from r3d_fast.errors import CheckpointError, RankFailed, RankLost, Stopped
from r3d_fast.evaluation.evaluate import check_classes
from r3d_fast.loaders import eval_loader, open_index, rank_batch_size, train_loader
from r3d_fast.ranks.group import Group, News, join_group
from r3d_fast.runs.folder import RunFolder
from r3d_fast.runs.shared_checkpoint import FoundCheckpoint, checkpoint_of_first
from r3d_fast.runs.writer import RunWriter
from r3d_fast.training.epoch import EpochPlan, TakenStep, steps_of_epoch
from r3d_fast.training.learner import Learner, model_to_train, step_on_noise
from r3d_fast.training.mixing import draw_mix
from r3d_fast.training.schedule import learning_rate
from r3d_fast.training.state import Due, RunClock, RunState, due_after
from r3d_fast.training.step import StepResult
from r3d_fast.training.step_log import StepLog
from r3d_fast.training.stop_signals import stop_signals
from r3d_fast.weights.checkpoint import FORMAT, Checkpoint
from r3d_fast.weights.initialization import initialise, require_weights

OnBatch = Callable[[Batch], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives: its folder, steps taken, top1 (fraction) of the best and the last evaluation."""

    run: Path
    steps: int
    best_top1: float
    last_top1: float | None


def train(config: Config, *, run: str | Path, resume: bool = False, on_batch: OnBatch | None = None) -> TrainResult:
    """Train as `config` says, in folder `run`; with `resume` go on from its newest whole checkpoint, if it has one.

    `on_batch` is called with each batch before it is trained on, on each rank with its own. Processes that were
    launched as a job train together; only the first one uses the folder `run`. Writes config.yaml, env.json,
    metrics.jsonl, metrics.csv, checkpoints/ and best/ there, and curves where `log_to` says. Raises UsageError if the
    folder can't be written, is in use, holds another run or was begun otherwise; DataError if too many videos can't be
    read; DivergedError if the loss stops being a number; EnvironmentProblem if the device lacks the precision or the
    memory; CheckpointError if the last checkpoint can't be written; Stopped on SIGINT or SIGTERM, after a checkpoint.
    """
    with join_group(config.train.rank_timeout_seconds) as group:
        return _train(config, Path(run), resume, group, on_batch)


def _train(config: Config, run: Path, resume: bool, group: Group, on_batch: OnBatch | None) -> TrainResult:
    """Open the data, the run's folder, the model and the files; train; close them again."""
    require_weights(config.init)
    device, precision, resolved = resolve_auto(config)
    index = open_index(config.data)
    place: dict[str, Any] = {"device": device, "dtype": precision.clip_dtype, "group": group}
    with (
        RunFolder(run) if group.is_first else nullcontext() as folder,
        train_loader(
            index, config.data.train_split, resolved.clip, resolved.augment, resolved.loader, **place
        ) as clips,
        eval_loader(index, config.data.eval_split, *resolved.eval_specs(), **place) as eval_clips,
    ):
        group.require_equal(data_set=index.digest, precision=str(precision))
        group.connect(device)
        state, records, checkpoint = _begin(config, run, folder, resume, index, precision, group)
        layout, trial = _choose_layout(config, device, precision, checkpoint, len(index.classes), group)
        resolved = config.in_data_format(layout.data_format)
        for loader in (clips, eval_clips):
            loader.use_layout(resolved.augment.layout)
        model = _first_model(resolved, index.classes, checkpoint is None, group)
        learner = Learner(
            model, config.optimizer, config.train, precision, device, checkpoint, group, padded_stem=layout.padded_stem
        )
        if precision.name != "fp32" and group.is_first:
            tell(f"training in {precision}, {layout}")
        plan = EpochPlan(len(clips), clips.spec.batch_size * group.count, config.train.accumulate)
        with (
            RunWriter(
                run if group.is_first else None, config.train, config.train.epochs * plan.steps, state.step, records
            ) as writer,
            # Paddle's launcher sends a signal three times at once.
            stop_signals(same_seconds=2.0 if group.count > 1 else 0.0) as stopping,
        ):
            if trial is not None:
                writer.log(trial.record(state.step))
            trainer = _Trainer(config, run, clips, eval_clips, plan, learner, state, writer, group, stopping, on_batch)
            trainer.train_to_end()
    return TrainResult(run, state.step, state.best_top1, state.last_top1)


def resolve_auto(config: Config) -> tuple[str, Precision, Config]:
    """(device, precision, config with a data format): what each `auto` of `config` means on this machine.

    Raises EnvironmentProblem where the machine lacks what is asked for.
    """
    device = choose_device(config.train.device, config.train.gpu_wait)
    precision = choose_precision(config.train.precision, device, config.train.amp_level)
    return device, precision, config.in_data_format(choose_data_format(config.model.data_format, precision, device))


def _choose_layout(
    config: Config, device: str, precision: Precision, checkpoint: Checkpoint | None, classes: int, group: Group
) -> tuple[Layout, Trial | None]:
    """(layout to train in, the trial that decided it), the same layout on all ranks; the trial on the first rank only.

    There is no trial where nothing is left to choose, nor in a run that goes on in the precision that it had.
    """
    choices = candidates(config.model.data_format, precision, device)
    before = None if checkpoint is None else stored_layout(checkpoint.state, precision)
    if before in choices:
        return before, None
    if len(choices) == 1:
        return choices[0], None
    rows = rank_batch_size(config.loader, group)
    trials: list[Trial] = []

    def begin(layout: Layout) -> Callable[[], StepResult]:
        model = model_to_train(config.in_data_format(layout.data_format).model, classes, config.train.seed, config.init)
        learner = Learner(model, config.optimizer, config.train, precision, device, padded_stem=layout.padded_stem)
        return step_on_noise(learner, rows, config.clip, config.augment.size_px)

    def decide() -> bytes:
        trials.append(try_layouts(choices, begin, rows, device))
        tell(str(trials[0]))
        return json.dumps(asdict(trials[0].layout)).encode()

    layout = Layout(**json.loads(group.from_first(decide)))
    return layout, trials[0] if trials else None


def _first_model(config: Config, classes: tuple[str, ...], is_new_run: bool, group: Group) -> Any:
    """The model before the first step: with random weights, or in a new run with the weights that `init` names."""
    init = config.init
    model = model_to_train(config.model, len(classes), config.train.seed, init)
    if is_new_run and init.weights is not None:
        if group.is_first:
            initialise(model, config.model, init, config.augment, classes)
        group.exchange(None)  # if that failed on the first rank, the others learn of it here
    return model


def _begin(
    config: Config, run: Path, folder: RunFolder | None, resume: bool, index: VideoIndex, precision: Precision,
    group: Group,
) -> tuple[RunState, int, Checkpoint | None]:  # fmt: skip
    """(where the run is, records that it has written, checkpoint to go on from), the same on all ranks.

    On the first rank, which alone has a `folder`, this writes config.yaml and env.json there. It prints a warning for
    each damaged checkpoint and for another precision than before, and the step at which the run goes on.
    """

    def find() -> FoundCheckpoint | None:
        return None if folder is None else folder.find_checkpoint(config, index.digest)

    found = checkpoint_of_first(find, group) if resume else None
    if found is None:
        if folder is not None:
            if resume:
                folder.describe(config)
            else:
                folder.begin(config)
        return RunState(), 0, None
    checkpoint, complaints = found
    check_classes(tuple(checkpoint.state["classes"]), index.classes, str(run), str(index.path))
    state = RunState.of(checkpoint)
    if folder is not None:
        folder.describe(config)
        trained = checkpoint.state.get("precision", "fp32")
        if trained != str(precision):
            complaints = [*complaints, f"{run}: was trained in {trained} so far, goes on in {precision}"]
        for complaint in complaints:
            tell(f"warning: {complaint}")
        tell(f"{run}: going on at step {state.step}, epoch {state.epoch + 1}")
    return state, int(checkpoint.state["records"]), checkpoint


class _Trainer:
    """A run in progress. `state` says where it is; `learner` has the model and all that is learned with it."""

    def __init__(
        self, config: Config, run: Path, clips: ClipLoader, eval_clips: ClipLoader, plan: EpochPlan, learner: Learner,
        state: RunState, writer: RunWriter, group: Group, stopping: Callable[[], bool], on_batch: OnBatch | None,
    ) -> None:  # fmt: skip
        """`clips` are trained on and `eval_clips` evaluated; `stopping` says whether a signal asks the run to stop."""
        self.config, self.spec, self.run = config, config.train, run
        self.clips, self.eval_clips, self.plan = clips, eval_clips, plan
        self.learner, self.state, self.writer = learner, state, writer
        self.group, self.stopping, self.on_batch = group, stopping, on_batch
        self.log = StepLog(config.train, clips.index, learner.device, group)
        self.clock = RunClock(state.seconds)
        self._first_step = state.step
        self._unreadable: dict[int, str] = {}  # why, by the number of the video
        self._is_routing_known = False

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
        state = self.state
        self.log.begin()
        steps = steps_of_epoch(
            self._batches(), self.plan, rate=self._learning_rate, learn=self._learn,
            mix=partial(draw_mix, spec=self.spec, size_px=self.config.augment.size_px),
            channels_last=self.clips.sampler.augment.layout == "NTHWC",
        )  # fmt: skip
        for step in steps:
            state.step, state.position = state.step + 1, step.position
            self.log.add(state.step, step)
            due = self._due_after(step)
            if due.save or due.end or self.log.is_due(state.step):
                self.log.read(state, self.writer)
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
        for pair in feeding(clips, self.learner.device, self.group.wait):
            self._tell_routing()
            if self.on_batch is not None:
                self.on_batch(pair[0])
            yield pair

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
            self.state.step - self.state.skipped, base=self.config.optimizer.lr, steps_per_epoch=self.plan.steps,
            epochs=self.spec.epochs, spec=self.config.schedule, falls=self.state.falls,
        )  # fmt: skip

    def _learn(self, batch: DeviceBatch, rate: float, *, last: bool, place: tuple[int, int]) -> StepResult:
        """What the learner gives for a batch; an error after the first step is raised once a checkpoint is written."""
        try:
            return self.learner.step(batch, rate, last=last, place=place)
        except (EnvironmentProblem, RankFailed) as error:
            # Saving would hang in two cases: a GPU may wait for ever for a rank that is lost, and steps that were not
            # read yet can't be read without the other ranks.
            unsaved = isinstance(error, RankLost) or (self.group.count > 1 and self.log.has_unread)
            if unsaved or self.state.step == self._first_step:  # no step was taken: there is nothing new to save
                raise
            self._save()
            raise self._ended(error) from error

    def _due_after(self, step: TakenStep) -> Due:
        """What is due after `step`, once the ranks have told each other what happened to them."""
        is_late = self.clock.is_save_late(self.spec)
        news = self.group.share(News(tuple(step.bad), self.stopping(), is_late, self.clock.seconds))
        self._leave_out(news.bad)
        self.state.seconds = news.seconds
        return due_after(self.state, news, self.spec)

    def _leave_out(self, clips: tuple[BadClip, ...]) -> None:
        """Name the videos of clips that can't be read. Raises DataError if they are more than the config allows."""
        bad = self._unreadable
        for clip in clips:
            if clip.video_id not in bad:
                bad[clip.video_id] = clip.reason
                self.writer.say(f"warning: left out: {clip.reason}")
        videos, allowed = len(self.clips.sampler.videos), self.config.data.max_bad_fraction
        if len(bad) > allowed * videos:
            raise DataError(
                f"{len(bad)} of {videos} training videos can't be read, more than data.max_bad_fraction {allowed} "
                f"allows; first: {next(iter(bad.values()))}; index the data set again"
            )

    def _evaluate(self, is_whole: bool, train_seconds: float) -> None:
        """Evaluate, report the figures, and save the model where it is the best so far.

        `is_whole`: whether the epoch was trained to its end, which took `train_seconds`.
        """
        state, start = self.state, time.monotonic()
        evaluation = self.learner.evaluate(self.eval_clips)
        is_best = state.note(evaluation, self.config.schedule, whole_epoch=is_whole)
        self.log.evaluated(evaluation, state, self.writer, train_seconds, time.monotonic() - start)
        if is_best:
            self._save(best=True)

    def _save(self, *, best: bool = False) -> None:
        """Start writing a checkpoint: that of this step, or the best one. All ranks call this, the first writes."""
        self.log.read(self.state, self.writer)
        if self.group.is_first:
            index = self.clips.index
            about = {
                "format": FORMAT, "config": self.config.model_dump(mode="json"), "classes": list(index.classes),
                "index_digest": index.digest, "records": self.writer.records,
            }  # fmt: skip
            values = {**about, **vars(self.state), **self.learner.state()}
            self.writer.save(Checkpoint(*self.learner.arrays(), values), best=best)
        if not best:
            self.clock.saved()

    def _ended(self, error: R3DFastError) -> R3DFastError:
        """The error to raise where the run stops early: `error`, with the command that goes on from there.

        Waits until all checkpoints are on the disk; CheckpointError where the disk refuses.
        """
        config, run = shlex.quote(str(self.run / "config.yaml")), shlex.quote(str(self.run))
        command = f"r3d-fast train -c {config} --run {run} --resume auto"
        try:
            self.writer.finish()
        except CheckpointError as refused:
            return CheckpointError(
                f"{error}, and {refused}; free space there and continue from the one before it: {command}"
            )
        if str(error):
            error.args = (f"{error}; continue with: {command}",)
        return error

"""Training: `train` opens what a run needs, and `Trainer.train_to_end` is its loop.

A run ends after `train.epochs` epochs, after `train.early_stop_evals` evaluations without progress, or after
`train.max_minutes` minutes. It stops on a signal or an error, and can go on later with `resume`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.class_balance import class_weights
from pipelines.dali.versions import import_dali
from pipelines.index.video_index import VideoIndex
from pipelines.input.credentials import values_without_credentials
from pipelines.loader import ClipLoader
from pipelines.output.files import write_file
from r3d_fast.acceleration.layout_trial import Layout, Trial, candidates, stored_layout, try_layouts
from r3d_fast.backend.paddle import choose_device, cpu_threads
from r3d_fast.backend.precision import Precision, choose_data_format, choose_precision
from r3d_fast.config.config import Config
from r3d_fast.console import counted, tell
from r3d_fast.evaluation.evaluate import check_classes
from r3d_fast.learning.learner import Learner, model_to_train, step_on_noise
from r3d_fast.learning.schedule import learning_rate
from r3d_fast.learning.step import StepResult
from r3d_fast.loaders import eval_loader, open_index, rank_batch_size, train_loader, usual_eval_batch
from r3d_fast.planning.batch_choice import ChosenBatches, choose_batches, kept_batches, rate_note, with_batches
from r3d_fast.planning.plan import Plan, Work, plan_of
from r3d_fast.ranks.group import Group, join_group
from r3d_fast.runs.fold_results import resume_command, start_hint
from r3d_fast.runs.folder import RunFolder, written_config
from r3d_fast.runs.shared_checkpoint import FoundCheckpoint, checkpoint_of_first
from r3d_fast.runs.writer import RunWriter
from r3d_fast.training.epoch import EpochPlan
from r3d_fast.training.forecast import Forecast, evaluations_left
from r3d_fast.training.outcome import reporting
from r3d_fast.training.state import RunState
from r3d_fast.training.stop_signals import stop_signals
from r3d_fast.training.trainer import OnBatch, Trainer
from r3d_fast.weights.checkpoint import Checkpoint
from r3d_fast.weights.initialization import initialise, require_weights


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives: its folder, steps taken, top1 (fraction) of the best and the last evaluation."""

    run: Path
    steps: int
    best_top1: float
    last_top1: float | None


def train(
    config: Config, *, run: str | Path, resume: bool = False, on_batch: OnBatch | None = None,
    on_begin: Callable[[], None] | None = None,
) -> TrainResult:  # fmt: skip
    """Train as `config` says, in folder `run`; with `resume` go on from its newest whole checkpoint, if it has one.

    `on_batch` is called with each batch before it is trained on, on each rank with its own; `on_begin` once on the
    first rank, when all is checked and the first file of the run is about to be written. Processes that were
    launched as a job train together; only the first one uses the folder `run`. Writes config.yaml, env.json,
    metrics.jsonl, metrics.csv, checkpoints/, best/, evaluation/, train_clips.png, eval_clips.png and report.html there,
    and curves where `log_to` says. Raises UsageError if the folder can't be written, is in use, holds another run or
    was begun otherwise; DataError if too many videos can't be read; DivergedError if the loss stops being a number;
    EnvironmentProblem if the device lacks the precision or the memory; CheckpointError if the last checkpoint can't be
    written; Stopped on SIGINT or SIGTERM, after a checkpoint.
    """
    with join_group(config.train.rank_timeout_seconds) as group:
        import_dali()  # the first batch needs it; where it can't be had, no run folder is to be made
        return _train(config, Path(run), resume, group, on_batch, on_begin)


def _train(
    config: Config, run: Path, resume: bool, group: Group, on_batch: OnBatch | None,
    on_begin: Callable[[], None] | None,
) -> TrainResult:  # fmt: skip
    """Open the data, the run's folder, the model and the files; train; close them again."""
    require_weights(config.init, is_new_run=not resume)
    device, precision, resolved = resolve_auto(config)
    index = open_index(config.data)
    chosen = _choose_batches(config, run, resume, index, device, group)
    config, resolved = chosen.config, resolve_auto(chosen.config)[2]
    in_common = _of_both_loaders(config, device, precision, group)
    with (
        RunFolder(run) if group.is_first else nullcontext() as folder,
        train_loader(
            index, config.data.train_split, resolved.clip, resolved.augment, resolved.loader,
            balanced=config.data.balance == "sampling", **in_common,
        ) as clips,
        eval_loader(index, config.data.eval_split, *resolved.eval_specs(), **in_common) as eval_clips,
    ):  # fmt: skip
        plan = _epoch_plan(config, clips)
        group.require_equal(data_set=index.digest, precision=str(precision))
        group.connect(device)
        state, records, checkpoint = _place(config, run, folder, resume, index, precision, group)
        layout, trial = _choose_layout(config, device, precision, checkpoint, len(index.classes), group)
        resolved = config.in_data_format(layout.data_format)
        for loader in (clips, eval_clips):
            loader.use_layout(resolved.augment.layout)
        model = _first_model(resolved, index.classes, checkpoint is None, group)
        labels = clips.sampler.videos.label
        learner = Learner(
            model, config.optimizer, config.train, precision, device, checkpoint, group,
            padded_stem=layout.padded_stem, rows=clips.batch_size,
            class_weights=class_weights(labels, len(index.classes)) if config.data.balance == "loss" else None,
        )  # fmt: skip
        if folder is not None:  # from here on files are written
            if on_begin is not None:
                on_begin()
            notes = chosen.notes | rate_note(config, clips.batches.largest)
            folder.describe(config, notes if checkpoint is None else None, is_new=not resume)
        if precision.name != "fp32" and group.is_first:
            tell(f"training in {precision}, {layout}")
        outlook = _outlook(resolved, chosen, run, learner, plan, state, clips, eval_clips, precision)
        forecast = Forecast(config.train, state, plan.steps, outlook.step_seconds, outlook.eval_seconds)
        with (
            # Paddle's launcher sends a signal three times at once.
            stop_signals(2.0 if group.count > 1 else 0.0, said_at_once=_said_at_once(run)) as stopping,
            reporting(run if group.is_first and config.train.report else None),
            RunWriter(
                run if group.is_first else None, config.train, config.train.epochs * plan.steps, state.step, records,
                forecast.seconds_left,
            ) as writer,
        ):  # fmt: skip
            if trial is not None:
                writer.log(trial.record(state.step))
            trainer = Trainer(
                config, run, clips, eval_clips, plan, learner, state, forecast, writer, group, stopping, on_batch
            )
            with closing(trainer.first_clips):
                trainer.train_to_end()
    return TrainResult(run, state.step, state.best_top1, state.last_top1)


def _epoch_plan(config: Config, clips: ClipLoader) -> EpochPlan:
    """How an epoch of `clips` is divided. Raises UsageError where `config` has no learning rates for these steps."""
    plan = EpochPlan(clips.batches, config.train.accumulate)
    learning_rate(
        0, base=config.base_rate(plan.batches.largest), steps_per_epoch=plan.steps, epochs=config.train.epochs,
        spec=config.schedule,
    )  # fmt: skip
    return plan


def _said_at_once(run: Path) -> str:
    """What is told where a second signal ends the run at once, without a checkpoint of its last steps."""
    return f"r3d-fast: stopped at once; continue from the last checkpoint with: {resume_command(run)}"


def check_start(config: Config, run: Path, resume: bool, index: VideoIndex) -> None:
    """Check that `config` can be trained on `index` in the folder `run`, as far as that depends on what it holds.

    Changes nothing. Raises UsageError if it holds anything else, is in use, or was begun otherwise.
    """
    if not run.exists():
        return
    with RunFolder(run) as folder:
        if not resume:
            folder.require_new()
        elif (before := written_config(run)) is not None and (known := kept_batches(config, before)) is not None:
            folder.fitting_checkpoint(known.config, index)


def _choose_batches(
    config: Config, run: Path, resume: bool, index: VideoIndex, device: str, group: Group
) -> ChosenBatches:
    """The batches of the run, the same on all ranks; the first rank decides them, by a trial where one is needed.

    A run that goes on keeps those that it has. Raises EnvironmentProblem where a batch does not fit into the memory.
    """
    made: list[ChosenBatches] = []

    def decide() -> bytes:
        before = written_config(run) if resume else None
        if before is not None and (known := kept_batches(config, before)) is not None:
            made.append(known)
        else:
            made.append(choose_batches(config, index, device, group.count, group.local_count))
        chosen, usual = made[0].config, usual_eval_batch(device)
        sizes = chosen.loader.batch_size, usual if chosen.eval.batch_size is None else chosen.eval.batch_size
        return json.dumps(sizes).encode()

    sizes = json.loads(group.from_first(decide))
    return made[0] if made else ChosenBatches(with_batches(config, *sizes), None, 0, "", "")


def _outlook(
    config: Config, chosen: ChosenBatches, run: Path, learner: Learner, plan: EpochPlan, state: RunState,
    clips: ClipLoader, eval_clips: ClipLoader, precision: Precision,
) -> Plan:  # fmt: skip
    """What the run is going to do from `state` on; the first rank prints it and writes it to plan.json."""
    spec, device = config.train, f"GPU, {precision}"
    if learner.device == "cpu":
        device = f"CPU, {counted(cpu_threads(), 'thread')}, {precision}"
    work = Work(
        spec.epochs, plan.steps, state.step, len(eval_clips), evaluations_left(spec, state), plan.batches.largest,
        eval_clips.batch_size * learner.group.count,
    )  # fmt: skip
    parameters = sum(math.prod(parameter.shape) for parameter in learner.model.parameters() if parameter.trainable)
    outlook = plan_of(config, chosen, clips.index, work, device=device, parameters=parameters, run=str(run))
    if learner.group.is_first:
        tell(*str(outlook).split("\n"))
        shown = values_without_credentials(outlook.as_json())
        write_file(run / "plan.json", json.dumps(shown, indent=1).encode(), start_hint(run), follow=False)
    return outlook


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


def _of_both_loaders(config: Config, device: str, precision: Precision, group: Group) -> dict[str, Any]:
    """What the loaders of training and of evaluation have in common, by the names of their arguments."""
    fraction = config.data.max_corrupt_fraction
    return {"device": device, "dtype": precision.clip_dtype, "group": group, "max_corrupt_fraction": fraction}


def _place(
    config: Config, run: Path, folder: RunFolder | None, resume: bool, index: VideoIndex, precision: Precision,
    group: Group,
) -> tuple[RunState, int, Checkpoint | None]:  # fmt: skip
    """(where the run is, records that it has written, checkpoint to go on from), the same on all ranks.

    The first rank, which alone has a `folder`, prints a warning for each damaged checkpoint and for another precision
    than before, and the step at which the run goes on. Raises UsageError where `folder` holds another run, or one that
    was begun otherwise.
    """

    def find() -> FoundCheckpoint | None:
        return None if folder is None else folder.find_checkpoint(config, index)

    found = checkpoint_of_first(find, group) if resume else None
    if found is None:
        if folder is not None and not resume:
            folder.require_new()
        return RunState(), 0, None
    checkpoint, complaints = found
    check_classes(tuple(checkpoint.state["classes"]), index.classes, str(run), str(index.path))
    state = RunState.of(checkpoint)
    if folder is not None:
        trained = checkpoint.state.get("precision", "fp32")
        if trained != str(precision):
            complaints = [*complaints, f"{run}: was trained in {trained} so far, goes on in {precision}"]
        for complaint in complaints:
            tell(f"warning: {complaint}")
        tell(f"{run}: going on at step {state.step}, epoch {state.epoch + 1}")
    return state, int(checkpoint.state["records"]), checkpoint

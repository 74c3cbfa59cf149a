"""Training, top to bottom: clips in, steps, evaluations, checkpoints. A run that is stopped goes on where it was."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import DataError, R3DFastError
from pipelines.index import VideoIndex
from pipelines.loader import BadClip
from r3d_fast.checkpoint import FORMAT as CHECKPOINT_FORMAT
from r3d_fast.checkpoint import Checkpoint, drop_old_checkpoints, save_checkpoint, step_folder
from r3d_fast.config import Config
from r3d_fast.data import eval_loader, open_index, train_loader
from r3d_fast.distributed import Group, Silent, join_group, pack, unpack
from r3d_fast.evaluate import Evaluation, check_classes
from r3d_fast.feed import feeding
from r3d_fast.learner import Learner
from r3d_fast.metrics import ClassificationMetrics
from r3d_fast.precision import Precision, settle
from r3d_fast.runfolder import RunFolder
from r3d_fast.runlog import MetricsFile, Progress
from r3d_fast.schedule import learning_rate
from r3d_fast.signals import stop_signals

_MAX_BAD_STEPS = 20  # losses in a row that are no numbers, after which nothing will mend the run


class DivergedError(R3DFastError, ArithmeticError):
    """The loss is not a number any more."""

    exit_code = 6


class Stopped(R3DFastError):
    """A signal ended the run, after a checkpoint from which it can go on."""

    exit_code = 75


@dataclass
class RunState:
    """Where a run is: the next step to take, the next clip to take it on, the best evaluation so far."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    skipped: int = 0  # steps that moved nothing, which the learning rate does not count
    best_top1: float = -1.0
    best_step: int = -1
    last_top1: float | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RunState:
        """Where the run was when `checkpoint` was made."""
        names = cls.__dataclass_fields__.keys() & checkpoint.state.keys()
        return cls(**{name: checkpoint.state[name] for name in names})


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives: its folder, steps taken, top1 (fraction) of the best and the last evaluation."""

    run: Path
    steps: int
    best_top1: float
    last_top1: float | None


def train(config: Config, *, run: str | Path, resume: bool = False) -> TrainResult:
    """Train as `config` says, in folder `run`; with `resume` go on from its newest whole checkpoint, if it has one.

    Processes that were launched as a job train together; the first alone uses `run`.
    Writes config.yaml, env.json, metrics.jsonl, metrics.csv, checkpoints/ and best/ there. Raises UsageError if the
    folder is in use, holds another run or was begun with another setup; DataError if too many videos can't be read;
    DivergedError if the loss stops being a number; EnvironmentProblem if the device lacks the precision or the memory;
    Stopped on SIGINT or SIGTERM, after a checkpoint.
    """
    with join_group(config.train.rank_timeout_seconds) as group:
        return _train(config, Path(run), resume, group)


def _train(config: Config, run: Path, resume: bool, group: Group) -> TrainResult:
    device, precision, settled = settle(config)
    index = open_index(config)
    with (
        RunFolder(run) if group.is_first else Silent(run) as folder,
        train_loader(settled, index, device, precision.clip_dtype, group) as loader,
        eval_loader(settled, index, device=device, dtype=precision.clip_dtype, group=group) as checks,
    ):
        group.require_equal(data_set=index.digest, precision=str(precision))
        group.connect(device)
        state, records, checkpoint = RunState(), 0, None
        found = _find_checkpoint(folder, config, index.digest, group) if resume else None
        if found is None:
            if not resume:
                folder.begin(config)
            folder.describe(config)
        else:
            checkpoint, complaints = found
            check_classes(tuple(checkpoint.state["classes"]), index.classes, str(run), str(index.path))
            state, records = RunState.of(checkpoint), int(checkpoint.state["records"])
            if group.is_first:
                _tell(checkpoint, complaints, state, precision, folder.path)
        learner = Learner(settled, len(index.classes), precision, device, checkpoint, group)
        if precision.name != "fp32" and group.is_first:
            print(f"training in {precision}, {settled.model.data_format}", file=sys.stderr)
        metrics = MetricsFile(folder.path, records) if group.is_first else Silent()
        bad: dict[int, str] = {}

        def save(where: Path) -> None:
            if not group.is_first:
                return
            metrics.sync()
            values = {**_describe(config, index, state, metrics.count), **learner.state()}
            save_checkpoint(where, Checkpoint(*learner.arrays(), values))
            drop_old_checkpoints(folder.path, config.train.keep_checkpoints)

        total = config.train.epochs * len(loader)
        saved_at, saved_step = time.monotonic(), state.step
        not_numbers, routing = 0, None
        with (
            Progress("train", total, state.step, config.train.log_every_steps)
            if group.is_first
            else Silent() as progress,
            stop_signals(same_seconds=2.0 if group.count > 1 else 0.0) as stopping,
            closing(metrics),
        ):
            while state.epoch < config.train.epochs:
                seen, waited = ClassificationMetrics(len(index.classes)), 0.0
                epoch_start = interval_start = time.monotonic()
                interval_clips, interval_wait = 0, 0.0
                batches = feeding(loader.epoch(state.epoch, state.position), device)
                while True:
                    asked = time.monotonic()
                    pair = next(batches, None)
                    if pair is None:
                        break
                    batch, fed = pair
                    if device == "gpu" and routing is None and (routing := loader.routing) is not None:
                        progress.say(str(routing))
                        metrics.write({"kind": "loader", "step": state.step, **asdict(routing)})
                    wait = time.monotonic() - asked
                    waited, interval_wait = waited + wait, interval_wait + wait
                    rate = learning_rate(
                        state.step - state.skipped, base=config.optimizer.lr, steps_per_epoch=len(loader),
                        epochs=config.train.epochs, spec=config.schedule,
                    )  # fmt: skip
                    group.seed(config.train.seed, state.step)
                    loss, logits, applied = learner.step(fed, rate)
                    if applied:
                        not_numbers = 0
                    elif not np.isfinite(loss) or learner.scaler.collapsed:
                        not_numbers += 1
                    if not_numbers == _MAX_BAD_STEPS:
                        raise DivergedError(
                            f"the loss or its gradients were not a number in {not_numbers} steps in a row (step "
                            f"{state.step}, videos {[index[int(i)].path for i in batch.video_ids[:4]]}); "
                            "lower optimizer.lr or warm up"
                        )
                    one = ClassificationMetrics(len(index.classes))
                    one.update(logits, batch.labels, batch.is_real)
                    minutes = config.train.checkpoint_every_minutes
                    due = minutes is not None and time.monotonic() - saved_at > 60 * minutes
                    news = group.pool(one, batch.bad, stop=stopping(), save=due)
                    _count_bad(news.bad, bad, config, len(loader.sampler.videos), progress)
                    seen.merge(news.metrics)
                    state.step, state.position = state.step + 1, batch.position
                    state.skipped += not applied
                    interval_clips += len(batch.labels) * group.count
                    passed = time.monotonic() - interval_start
                    speed, share = interval_clips / passed, interval_wait / passed
                    figures, now = seen.result(), news.metrics.result()
                    metrics.write({
                        "kind": "train", "epoch": state.epoch + 1, "step": state.step, "loss": loss,
                        "top1": now["top1"], "lr": rate, "clips_per_second": speed, "wait_share": share,
                        "count": now["count"], "seconds": time.monotonic() - asked,
                        "skipped": state.skipped, "loss_scale": learner.scaler.scale,
                    })  # fmt: skip
                    progress.step(
                        f"epoch {state.epoch + 1}/{config.train.epochs}  loss {figures['loss'] or 0:.3f}  "
                        f"top1 {100 * (figures['top1'] or 0):.1f} %  {speed:.1f} clips/s  data {100 * share:.0f} %"
                    )
                    if state.step % config.train.log_every_steps == 0:
                        interval_start, interval_clips, interval_wait = time.monotonic(), 0, 0.0
                    steps = config.train.checkpoint_every_steps
                    due = news.save or (steps is not None and state.step % steps == 0)
                    if due or news.stop:
                        save(step_folder(folder.path, state.step))
                        saved_at, saved_step = time.monotonic(), state.step
                    if news.stop:
                        raise _stopped(folder.path, state)
                seconds = time.monotonic() - epoch_start
                last = state.epoch + 1 == config.train.epochs
                if last or (state.epoch + 1) % config.train.eval_every_epochs == 0:
                    start = time.monotonic()
                    evaluation = learner.evaluate(checks)
                    spent = (seconds, waited, time.monotonic() - start)
                    best = _note(evaluation, config, state, metrics, progress, spent)
                    if best:
                        save(folder.path / "best")
                state.epoch, state.position = state.epoch + 1, 0
                save(step_folder(folder.path, state.step))
                saved_at, saved_step = time.monotonic(), state.step
                if group.any(stopping()) and not last:
                    raise _stopped(folder.path, state)
        assert saved_step == state.step, "a run never ends without its last checkpoint"
    return TrainResult(Path(run), state.step, state.best_top1, state.last_top1)


def _note(
    evaluation: Evaluation,
    config: Config,
    state: RunState,
    metrics: MetricsFile | Silent,
    progress: Progress | Silent,
    spent: tuple[float, float, float],
) -> bool:
    """Write an evaluation down; whether it is the best so far. Videos decide, their views averaged.

    `spent`: seconds in which the epoch was trained, of which it waited for data, and those of the evaluation.
    """
    train_seconds, waited, seconds = spent
    figures = evaluation.video
    top1 = figures["top1"]
    if top1 is None:
        raise DataError(f"none of the {evaluation.num_videos} videos of split {config.data.eval_split!r} could be read")
    metrics.write({
        "kind": "eval", "epoch": state.epoch + 1, "step": state.step, "loss": figures["loss"], "top1": top1,
        "top5": figures["top5"], "count": figures["count"], "seconds": seconds,
    })  # fmt: skip
    missing = evaluation.num_videos - evaluation.num_evaluated
    progress.say(
        f"epoch {state.epoch + 1}: test top1 {100 * top1:.2f} %  loss {figures['loss']:.4f}  "
        f"({figures['count']} videos{f', {missing} unreadable' if missing else ''})  "
        f"trained {train_seconds:.0f} s, waited for data {100 * waited / max(train_seconds, 1e-9):.0f} %, "
        f"evaluated {seconds:.0f} s"
    )
    state.last_top1 = top1
    if top1 <= state.best_top1:
        return False
    state.best_top1, state.best_step = top1, state.step
    return True


def _find_checkpoint(
    folder: RunFolder | Silent, config: Config, digest: str, group: Group
) -> tuple[Checkpoint, list[str]] | None:
    """What `RunFolder.find_checkpoint` says on the first rank, on all of them."""

    def find() -> bytes:
        found = folder.find_checkpoint(config, digest)
        if found is None:
            return pack(None, {})
        checkpoint, complaints = found
        parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
        arrays = {f"{part}/{name}": array for part, held in parts.items() for name, array in held.items()}
        return pack([checkpoint.state, complaints], arrays)

    if group.count == 1:
        return folder.find_checkpoint(config, digest)
    values, arrays = unpack(group.from_first(find))
    if values is None:
        return None
    weights, optimizer = (
        {name[len(part) :]: array for name, array in arrays.items() if name.startswith(part)}
        for part in ("weights/", "optimizer/")
    )
    return Checkpoint(weights, optimizer, values[0]), values[1]


def _count_bad(
    clips: tuple[BadClip, ...], bad: dict[int, str], config: Config, videos: int, progress: Progress | Silent
) -> None:
    """Note the videos that can't be read; raise DataError once they are more than the config allows."""
    for clip in clips:
        if clip.video_id not in bad:
            bad[clip.video_id] = clip.reason
            progress.say(f"warning: left out: {clip.reason}")
    if len(bad) > config.data.max_bad_fraction * videos:
        raise DataError(
            f"{len(bad)} of {videos} training videos can't be read, more than data.max_bad_fraction "
            f"{config.data.max_bad_fraction} allows; first: {next(iter(bad.values()))}; index the data set again"
        )


def _describe(config: Config, index: VideoIndex, state: RunState, records: int) -> dict[str, Any]:
    return {
        "format": CHECKPOINT_FORMAT,
        "config": config.model_dump(mode="json"),
        "classes": list(index.classes),
        "index_digest": index.digest,
        "records": records,
        **vars(state),
    }


def _tell(checkpoint: Checkpoint, complaints: list[str], state: RunState, precision: Precision, run: Path) -> None:
    """Say what the run goes on with, and what is not as it was."""
    before = checkpoint.state.get("precision", "fp32")
    if before != str(precision):
        complaints = [*complaints, f"{run}: was trained in {before} so far, goes on in {precision}"]
    for complaint in complaints:
        print(f"warning: {complaint}", file=sys.stderr)
    print(f"{run}: going on at step {state.step}, epoch {state.epoch + 1}", file=sys.stderr)


def _stopped(run: Path, state: RunState) -> Stopped:
    command = f"r3d-fast train -c {shlex.quote(str(run / 'config.yaml'))} --run {shlex.quote(str(run))} --resume auto"
    return Stopped(f"stopped by a signal after step {state.step}; continue with: {command}")

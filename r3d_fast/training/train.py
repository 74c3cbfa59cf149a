"""Training, top to bottom: clips in, steps, evaluations, checkpoints. A run that is stopped goes on where it was."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pipelines.errors import DataError, EnvironmentProblem, R3DFastError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import BadClip
from r3d_fast.backend.feed import feeding
from r3d_fast.backend.precision import Precision, settle
from r3d_fast.config.config import Config
from r3d_fast.console import tell
from r3d_fast.errors import CheckpointError, RankFailed, RankLost, Stopped
from r3d_fast.evaluation.evaluate import Evaluation, check_classes
from r3d_fast.loaders import eval_loader, open_index, train_loader
from r3d_fast.ranks.group import Group, News, join_group, pack, unpack
from r3d_fast.runs.folder import RunFolder
from r3d_fast.runs.outputs import Outputs, Silent
from r3d_fast.training.learner import Learner
from r3d_fast.training.mixing import draw_mix
from r3d_fast.training.schedule import learning_rate
from r3d_fast.training.state import RunState
from r3d_fast.training.step_log import StepLog
from r3d_fast.training.stop_signals import stop_signals
from r3d_fast.weights.checkpoint import Checkpoint
from r3d_fast.weights.initialization import initialise, require_weights


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
    Writes config.yaml, env.json, metrics.jsonl, metrics.csv, checkpoints/ and best/ there, and curves where `log_to`
    says. Raises UsageError if the folder can't be written, is in use, holds another run or was begun otherwise;
    DataError if too many videos can't be read; DivergedError if the loss stops being a number; EnvironmentProblem if
    the device lacks the precision or the memory; CheckpointError if the last checkpoint can't be written; Stopped on
    SIGINT or SIGTERM, after a checkpoint.
    """
    with join_group(config.train.rank_timeout_seconds) as group:
        return _train(config, Path(run), resume, group)


def _train(config: Config, run: Path, resume: bool, group: Group) -> TrainResult:
    require_weights(config)
    device, precision, settled = settle(config)
    index = open_index(config)
    with (
        RunFolder(run) if group.is_first else Silent(run) as folder,
        train_loader(settled, index, device, precision.clip_dtype, group) as loader,
        eval_loader(settled, index, device=device, dtype=precision.clip_dtype, group=group) as checks,
    ):
        group.require_equal(data_set=index.digest, precision=str(precision))
        group.connect(device)
        state, records, checkpoint = _begin(config, folder, resume, index, precision, group)
        begin = partial(initialise, config=settled, classes=index.classes) if config.init.weights else None
        learner = Learner(settled, len(index.classes), precision, device, checkpoint, group, begin)
        if precision.name != "fp32" and group.is_first:
            tell(f"training in {precision}, {settled.model.data_format}")
        spec, batches_per_epoch = config.train, len(loader)
        # An epoch's last step takes the batches that are left, so that every epoch begins with a step.
        steps_per_epoch = -(-batches_per_epoch // spec.accumulate)
        per_batch = loader.spec.batch_size * group.count
        first_step, before, began = state.step, state.seconds, time.monotonic()
        saved_at, routing, bad = began, None, dict[int, str]()
        steps = StepLog(config, index, device, group)
        total = spec.epochs * steps_per_epoch
        with (
            Outputs(folder.path, spec, total, state.step, records) if group.is_first else Silent() as out,
            stop_signals(same_seconds=2.0 if group.count > 1 else 0.0) as stopping,
        ):

            def save(*, best: bool = False) -> None:
                steps.read(state, out)
                if isinstance(out, Outputs):
                    values = {**state.described(config, index, out.records), **learner.state()}
                    out.save(Checkpoint(*learner.arrays(), values), best=best)

            while state.epoch < spec.epochs and not state.enough(config):
                steps.begin()
                clips: list[BadClip] = []
                batches, whole = feeding(loader.epoch(state.epoch, state.position), device, group.wait), True
                while True:
                    asked = time.monotonic()
                    pair = next(batches, None)
                    if pair is None:
                        break
                    batch, fed = pair
                    if device == "gpu" and routing is None and (routing := loader.routing) is not None:
                        out.say(str(routing))
                        out.log({"kind": "loader", "step": state.step, **asdict(routing)})
                    steps.waited(time.monotonic() - asked)
                    rate = learning_rate(
                        state.step - state.skipped, base=config.optimizer.lr, steps_per_epoch=steps_per_epoch,
                        epochs=spec.epochs, spec=config.schedule, falls=state.falls,
                    )  # fmt: skip
                    mix = draw_mix(batch, config)
                    fed = mix.apply(fed, settled.model.data_format == "NDHWC")
                    number = batch.position // per_batch
                    whole = number % spec.accumulate == 0 or number == batches_per_epoch
                    try:
                        result = learner.step(fed, rate, last=whole, place=(batch.epoch, batch.position))
                    except (EnvironmentProblem, RankFailed) as error:
                        # A GPU may wait for a lost rank for ever, and the others are not here to read figures with;
                        # what never fitted does not fit later.
                        apart = isinstance(error, RankLost) or (group.count > 1 and steps.has_unread)
                        if apart or state.step == first_step:
                            raise
                        save()
                        raise _ended(error, out, run) from error
                    steps.add(result, mix.labels(batch.labels), batch.is_real, batch.video_ids.tolist())
                    clips += batch.bad
                    if not whole:
                        continue
                    state.step, state.position = state.step + 1, batch.position
                    steps.whole(state.step, rate)
                    minutes, every = spec.checkpoint_every_minutes, spec.checkpoint_every_steps
                    late = minutes is not None and time.monotonic() - saved_at > 60 * minutes
                    news = group.share(News(tuple(clips), stopping(), late, before + time.monotonic() - began))
                    clips.clear()
                    _count_bad(news.bad, bad, config, len(loader.sampler.videos), out)
                    state.seconds = news.seconds
                    due = news.save or news.stop or (every is not None and state.step % every == 0)
                    if due or steps.is_due(state.step) or state.enough(config):
                        steps.read(state, out)
                    if due:
                        save()
                        saved_at = time.monotonic()
                    if news.stop:
                        raise _ended(Stopped(f"stopped by a signal after step {state.step}"), out, run)
                    if state.enough(config):
                        break
                steps.read(state, out)
                done = state.position == batches_per_epoch * per_batch
                last = (done and state.epoch + 1 == spec.epochs) or state.enough(config) is not None
                trained = steps.seconds
                if last or (state.epoch + 1) % spec.eval_every_epochs == 0:
                    save()  # a kill during a long evaluation costs no step
                    start = time.monotonic()
                    evaluation = learner.evaluate(checks)
                    best = state.note(evaluation, config, whole=done)
                    _report(evaluation, state, out, (trained, steps.seconds_waited, time.monotonic() - start))
                    if best:
                        save(best=True)
                if done:
                    state.epoch, state.position = state.epoch + 1, 0
                save()
                saved_at = time.monotonic()
                if group.any(stopping()) and not last:
                    raise _ended(Stopped(f"stopped by a signal after step {state.step}"), out, run)
            if state.epoch < spec.epochs and (why := state.enough(config)):
                out.say(f"stopped after step {state.step}, epoch {state.epoch + 1}: {why}")
            out.finish()
    return TrainResult(run, state.step, state.best_top1, state.last_top1)


def _begin(
    config: Config, folder: RunFolder | Silent, resume: bool, index: VideoIndex, precision: Precision, group: Group
) -> tuple[RunState, int, Checkpoint | None]:
    """(where the run is, records that it has written, checkpoint to go on from), the same on all ranks."""
    found = _find_checkpoint(folder, config, index.digest, group) if resume else None
    if found is None:
        (folder.describe if resume else folder.begin)(config)
        return RunState(), 0, None
    checkpoint, complaints = found
    check_classes(tuple(checkpoint.state["classes"]), index.classes, str(folder.path), str(index.path))
    folder.describe(config)
    state = RunState.of(checkpoint)
    if group.is_first:
        trained = checkpoint.state.get("precision", "fp32")
        if trained != str(precision):
            complaints = [*complaints, f"{folder.path}: was trained in {trained} so far, goes on in {precision}"]
        for complaint in complaints:
            tell(f"warning: {complaint}")
        tell(f"{folder.path}: going on at step {state.step}, epoch {state.epoch + 1}")
    return state, int(checkpoint.state["records"]), checkpoint


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


def _report(evaluation: Evaluation, state: RunState, out: Outputs | Silent, spent: tuple[float, float, float]) -> None:
    """Write an evaluation down.

    `spent`: seconds in which the epoch was trained, of which it waited for data, and those of the evaluation.
    """
    train_seconds, waited, seconds = spent
    figures = evaluation.video
    out.log({
        "kind": "eval", "epoch": state.epoch + 1, "step": state.step, "loss": figures["loss"], "top1": figures["top1"],
        "top5": figures["top5"], "count": figures["count"], "seconds": seconds,
    })  # fmt: skip
    missing = evaluation.num_videos - evaluation.num_evaluated
    out.say(
        f"epoch {state.epoch + 1}: test top1 {100 * (figures['top1'] or 0):.2f} %  loss {figures['loss']:.4f}  "
        f"({figures['count']} videos{f', {missing} unreadable' if missing else ''})  "
        f"trained {train_seconds:.0f} s, waited for data {100 * waited / max(train_seconds, 1e-9):.0f} %, "
        f"evaluated {seconds:.0f} s"
    )


def _count_bad(
    clips: tuple[BadClip, ...], bad: dict[int, str], config: Config, videos: int, out: Outputs | Silent
) -> None:
    """Note the videos that can't be read; raise DataError once they are more than the config allows."""
    for clip in clips:
        if clip.video_id not in bad:
            bad[clip.video_id] = clip.reason
            out.say(f"warning: left out: {clip.reason}")
    if len(bad) > config.data.max_bad_fraction * videos:
        raise DataError(
            f"{len(bad)} of {videos} training videos can't be read, more than data.max_bad_fraction "
            f"{config.data.max_bad_fraction} allows; first: {next(iter(bad.values()))}; index the data set again"
        )


def _ended(error: R3DFastError, out: Outputs | Silent, run: Path) -> R3DFastError:
    """The error to raise where a run ends early, once all is on the disk: `error` and the command that continues it."""
    command = f"r3d-fast train -c {shlex.quote(str(run / 'config.yaml'))} --run {shlex.quote(str(run))} --resume auto"
    try:
        out.finish()
    except CheckpointError as refused:
        return CheckpointError(
            f"{error}, and {refused}; free space there and continue from the one before it: {command}"
        )
    if str(error):
        error.args = (f"{error}; continue with: {command}",)
    return error

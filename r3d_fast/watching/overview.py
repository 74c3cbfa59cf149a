"""What can be said of a run while it trains, or after: where it is, how well it does, when it will end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.plain_text import plain
from r3d_fast.console import as_time
from r3d_fast.runs.fold_results import is_fold_folder, read_folds, resume_command
from r3d_fast.runs.history import MetricsReader, RunHistory, check_run, is_running, number, read_history

_QUIET_SECONDS = 600.0  # a run that writes nothing for so long, and that no process here writes, has stopped
_GRACE_SECONDS = 15.0  # until a run counts as stopped whose process has ended here: it may be started again


@dataclass(frozen=True)
class Overview:
    """A run as its files are now. `state` is waiting, running, stopped or ended; only the last two are final.

    Of a folder of folds it is the one that runs or ran last: `fold` says which, as "fold 2 of 3", and `state` is that
    of all of them. `outcome` says what came of the folds when all have ended; "" before, and without folds.
    """

    path: Path
    history: RunHistory
    state: str
    fold: str = ""
    outcome: str = ""

    @property
    def name(self) -> str:
        """The folder of the run, or that of all folds and which of them it is."""
        return plain(f"{self.path.parent}, {self.fold}" if self.fold else str(self.path))

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in ("stopped", "ended")

    @property
    def epochs(self) -> int:
        """The epochs that the config asks for; 0 where it can't be read."""
        epochs = self.history.setting("train", "epochs")
        return epochs if isinstance(epochs, int) else 0

    @property
    def steps_an_epoch(self) -> float:
        """Steps in an epoch, from the last evaluation; NaN before the first one."""
        done = [(number(record, "step"), number(record, "epoch")) for record in self.history.evaluations]
        return done[-1][0] / done[-1][1] if done and done[-1][1] > 0 else math.nan

    def seconds_left(self) -> float:
        """Seconds until the last epoch is evaluated, by the time that steps and evaluations took; NaN if unknown."""
        steps, evaluations = self.history.steps, self.history.evaluations
        a_step = _mean(number(record, "seconds") for record in steps[-200:])
        an_evaluation = _mean(number(record, "seconds") for record in evaluations)
        if not steps or not evaluations:
            return math.nan
        left = self.epochs * self.steps_an_epoch - number(steps[-1], "step")
        return max(0.0, left) * a_step + max(0.0, left) / self.steps_an_epoch * an_evaluation

    def headlines(self) -> list[str]:
        """The run in three short lines: where it is; the latest figures; what follows from it."""
        steps, evaluations, best = self.history.steps, self.history.evaluations, self.history.best
        if not steps:
            return [f"{self.name}: {self.state}", "no step has been recorded yet", ""]
        last = steps[-1]
        where = f"epoch {number(last, 'epoch'):.0f}" + (f"/{self.epochs}" if self.epochs else "")
        in_all = f"/{self.epochs * self.steps_an_epoch:.0f}" if self.epochs and self.steps_an_epoch > 0 else ""
        left = self.seconds_left()
        eta = f"  ETA {as_time(left)}" if self.state == "running" and math.isfinite(left) else ""
        first = f"{self.name}: {self.state}  {where}  step {number(last, 'step'):.0f}{in_all}{eta}"
        second = (
            f"loss {_shown(number(last, 'loss'), '.3f')}  top1 {_percent(number(last, 'top1'))}  "
            f"lr {_shown(number(last, 'lr'), '.3g')}  {_shown(number(last, 'clips_per_second'), '.1f')} clips/s  "
            f"waits for data {_percent(number(last, 'wait_share'), 0)}"
        )
        third = ""
        if evaluations:
            test = evaluations[-1]
            split = self.history.setting("data", "eval_split")
            name = plain(split) if isinstance(split, str) else "test"
            third = f"{name}: loss {_shown(number(test, 'loss'), '.3f')}  top1 {_percent(number(test, 'top1'))}"
            if best is not None:
                third += f"  best {_percent(number(best, 'top1'))} (epoch {number(best, 'epoch'):.0f})"
        return [first, second, third]

    def last_word(self) -> str:
        """What became of a run, or of all folds, that is over, and what to do next."""
        if self.outcome:
            return f"{plain(str(self.path.parent))}: {self.outcome}"
        step = number(self.history.steps[-1], "step") if self.history.steps else 0
        said = f"{self.name}: {self.state} after step {step:.0f}"
        if self.history.best is not None:
            said += f", best top1 {_percent(number(self.history.best, 'top1'))}"
        if self.state == "stopped":
            said += f"; go on with: {resume_command(self.path)}"
        return said


class Watch:
    """Looks at the run, or the folds, in the folder `path` again and again: `look` gives its Overview."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was_running = False
        self._gone_since: float | None = None
        self._last_fold: int | None = None
        self._look_at(path)

    def _look_at(self, run: Path) -> None:
        """From now on show the run in the folder `run`: that of `path`, or one of its folds."""
        self._run = run
        self._metrics = MetricsReader(run / "metrics.jsonl")
        self._history = RunHistory(run)
        self._described = -1.0  # when config.yaml was written last

    def look(self) -> Overview:
        """The run as it is now; a folder that isn't there yet is a run that waits.

        Raises UsageError where `path` is no folder, or one with other things than a run, or its folds.json is damaged.
        """
        folds = read_folds(self.path)
        if not self.path.exists() or _begins(self.path) or (folds is not None and not folds.begun):
            return Overview(self.path, RunHistory(self.path), "waiting")
        if folds is None:
            self._read(self.path)
            return Overview(self.path, self._history, self._state(has_ended=_has_ended(self._history)))
        begun = folds.begun
        last = max(begun, key=lambda fold: _last_use(begun[fold]))
        # Where another fold has begun since the last look, the one before is shown once more: how it ended is new.
        fold = self._last_fold if self._last_fold in begun else last
        self._last_fold = last
        run = begun[fold]
        self._read(run)
        state = self._state(has_ended=folds.have_ended)
        outcome = folds.outcome() if state == "ended" else ""
        return Overview(run, self._history, state, f"fold {fold} of {folds.count}", outcome)

    def _read(self, run: Path) -> None:
        """Read what the files of the run in the folder `run` say now, as far as that isn't known."""
        if run != self._run:
            self._look_at(run)
        check_run(run)
        described = _written(run / "config.yaml")
        if described != self._described:
            self._described, self._history = described, read_history(run)
        if self._metrics.update() or not self._history.records:
            self._history = replace(self._history, records=tuple(self._metrics.records))

    def _state(self, *, has_ended: bool) -> str:
        """Whether the run is running, stopped or ended, as it is where it `has_ended` and is not trained further."""
        if is_running(self.path) or is_running(self._run):
            self._was_running, self._gone_since = True, None
            return "running"
        if has_ended:
            return "ended"
        now = time.monotonic()
        self._gone_since = now if self._gone_since is None else self._gone_since
        if self._was_running:
            return "stopped" if now - self._gone_since >= _GRACE_SECONDS else "running"
        metrics = _written(self._run / "metrics.jsonl")
        # The page is the last that a run writes. After that of a fold that has ended, the next fold begins.
        if _written(self._run / "report.html") >= metrics > 0.0 and not _has_ended(self._history):
            return "stopped"
        wall_clock = time.time_ns() / 1e9  # by which files say when they were written
        return "stopped" if wall_clock - max(metrics, self._described) > _QUIET_SECONDS else "running"


def _last_use(fold: Path) -> tuple[bool, float]:
    """Sorts the folders of folds: the one that runs is the largest, else the one that was written last."""
    return is_running(fold), max(_written(fold / "metrics.jsonl"), _written(fold / "config.yaml"))


def _has_ended(history: RunHistory) -> bool:
    """Whether the run is at its end: after all epochs, or earlier as `train.early_stop_evals` or `max_minutes` say."""
    evaluations = history.evaluations
    if not evaluations:
        return False
    epochs, evals = history.setting("train", "epochs"), history.setting("train", "early_stop_evals")
    minutes = history.setting("train", "max_minutes")
    if isinstance(epochs, int) and number(evaluations[-1], "epoch") >= epochs:
        return True
    if isinstance(evals, int) and history.evaluations_since_best >= evals:
        return True
    spent = sum(number(record, "seconds") for record in [*history.steps, *evaluations])
    return isinstance(minutes, (int, float)) and spent >= 0.95 * 60 * minutes


def _begins(path: Path) -> bool:
    """Whether `path` is a folder with nothing in it but what a run makes first, and a training of folds."""
    return path.is_dir() and all(
        entry.name in (".lock", "checkpoints", "ranks")
        or (is_fold_folder(entry) and not (entry / "config.yaml").exists())
        for entry in path.iterdir()
    )


def _written(path: Path) -> float:
    """When the file was written last, in seconds since 1970; 0 where it isn't there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _shown(value: float, form: str) -> str:
    return "?" if math.isnan(value) else format(value, form)


def _percent(share: float, digits: int = 1) -> str:
    return "?" if math.isnan(share) else f"{100 * share:.{digits}f} %"

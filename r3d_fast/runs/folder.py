"""The folder of a run: it is locked while a process writes it, describes the run, and says if the run can go on."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from pipelines.errors import DataError, UsageError
from pipelines.index.locations import rebuild_command
from pipelines.index.video_index import VideoIndex
from pipelines.input.regular_files import read_regular
from pipelines.output.files import write_file
from pipelines.output.folders import check_links_inside, check_own_files, make_folder, set_aside
from pipelines.output.places import write_errors
from r3d_fast.config.config import Config, ConfigError, config_diff, config_from_json, dump_config, load_config
from r3d_fast.config.sections import BACKENDS
from r3d_fast.config.yaml_files import MAX_BYTES
from r3d_fast.console import quoted
from r3d_fast.errors import CheckpointError
from r3d_fast.runs.environment import environment
from r3d_fast.runs.fold_results import FOLDS, has_begun, resume_command, run_to_resume, start_hint
from r3d_fast.runs.history import EVALUATION, has_steps
from r3d_fast.weights.checkpoint import (
    Checkpoint,
    clean_leftovers,
    damaged_best,
    latest_checkpoint,
    list_checkpoints,
    set_aside_newer,
)

# Keys that may change when a run goes on, as they don't change what a step computes.
_FREE = {
    "data.root", "data.index", "data.max_bad_fraction", "loader.workers", "loader.threads", "loader.prefetch",
    "train.epochs", "train.device", "train.gpu_wait", "train.log_every_steps", "train.log_every_seconds",
    "train.log_to", "train.report", "train.checkpoint_every_steps", "train.checkpoint_every_minutes",
    "train.keep_checkpoints",
    "train.eval_every_epochs", "train.rank_timeout_seconds", "train.early_stop_evals", "train.max_minutes",
    "eval.views", "eval.crops", "eval.batch_size",
}  # fmt: skip
_OPEN_LOCK = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_BYTES = 16 << 20  # of env.json, which grows with each part of a run, and of plan.json
# What has begun has at least one of these. A config.yaml alone may be the user's own.
_OF_A_RUN = {".lock", "metrics.jsonl"}
_LOGS = "ranks"  # the folder of the logs of `train --nproc`, which come before all else


class RunFolder:
    """The folder of a run, or of folds, locked while it is open, so that two processes never write the same run.

    Where it is closed before it describes a run, it is left as it was found: what was made of it is removed.
    """

    def __init__(self, path: Path, *, of_folds: bool = False) -> None:
        """Create or open `path`; `of_folds`: it is to have a folder for each fold, and no checkpoints of its own.

        Raises UsageError if it holds anything but a run (or folds), if it can't be written, or if another process uses
        it.
        """
        self.path, self._hint = path, start_hint(path)
        _refuse_other_folders(path, of_folds=of_folds)
        for place in (path, path / "checkpoints", path / EVALUATION):
            check_own_files(place, self._hint(None))
        for backend in BACKENDS:
            # In a folder of its own for each part of a run, wandb makes a link to the log in the user's cache.
            check_links_inside(path / backend, self._hint(None), deep=backend != "wandb")
        parts = [path / ".lock", *([] if of_folds else [path / "checkpoints"])]
        self._made = [place for place in (*parts, path, *path.parents) if not place.exists()]
        try:
            make_folder(path, self._hint)
            with write_errors(path, self._hint):
                for part in parts[1:]:
                    part.mkdir(exist_ok=True)
                self._lock = os.fdopen(os.open(path / ".lock", _OPEN_LOCK, 0o666), "a")
        except UsageError:
            self._remove_made()
            raise
        try:
            _lock(self._lock, path)
        except UsageError:
            self._lock.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not has_begun(self.path):
            self._remove_made()
        self._lock.close()

    def _remove_made(self) -> None:
        """Remove the files and empty folders that were made to open this folder."""
        for place in self._made:
            with suppress(OSError):
                if place.name == ".lock":
                    place.unlink()
                else:
                    place.rmdir()

    def require_new(self) -> None:
        """Raise UsageError if the folder holds a run already: one that has taken a step.

        What a start leaves that failed before its first step may be replaced.
        """
        if list_checkpoints(self.path) or has_steps(self.path):
            raise UsageError(
                f"{self.path}: holds a run already; choose another --run, or continue with: {resume_command(self.path)}"
            )

    def describe(self, config: Config, notes: Mapping[str, str] | None = None, *, is_new: bool = False) -> None:
        """Write config.yaml, with `notes` by its keys, and env.json, which keeps those of before under `earlier`.

        Unless the run `is_new`, the notes of the file before stay beside values that have not changed. Raises
        UsageError where the files can't be written.
        """
        text = dump_config(config, notes)
        if not is_new:
            text = _with_notes_of(self.path / "config.yaml", text)
        values = environment()
        with suppress(OSError, ValueError):
            before = json.loads(read_regular(self.path / "env.json", _MOST_BYTES))
            values["earlier"] = [*before.pop("earlier", []), before]
        write_file(self.path / "config.yaml", text.encode(), self._hint, follow=False)
        write_file(self.path / "env.json", json.dumps(values, indent=1).encode(), self._hint, follow=False)

    def find_checkpoint(self, config: Config, index: VideoIndex) -> tuple[Checkpoint, list[str]] | None:
        """(newest checkpoint that is not damaged, complaints about newer ones); None if the run has none yet.

        Newer ones, which are damaged, are renamed, and the remains of killed writes are deleted. That the best one is
        damaged is a complaint too; what is no folder in its place is renamed. Raises UsageError like
        `fitting_checkpoint`.
        """
        clean_leftovers(self.path)
        found = self.fitting_checkpoint(config, index)
        if found is None:
            return None
        folder, checkpoint, complaints = found
        if complaints:
            complaints = [*complaints, f"{folder}: is not damaged, and is used instead"]
            set_aside_newer(self.path, folder)
        if best := damaged_best(self.path):
            if not (self.path / "best").is_dir():  # a better one could not be written there
                with suppress(OSError):
                    set_aside(self.path / "best", ".damaged")
            complaints = [*complaints, best]
        return checkpoint, complaints

    def fitting_checkpoint(self, config: Config, index: VideoIndex) -> tuple[Path, Checkpoint, list[str]] | None:
        """(folder of the newest checkpoint that is not damaged, the checkpoint, complaints about newer ones).

        None if the run has none yet. Changes nothing. Raises UsageError, which says what differs and what to do, if the
        config or the data set is not that of the checkpoint.
        """
        found = latest_checkpoint(self.path)
        if found is None:
            return None
        folder, checkpoint, _ = found
        before = _config_of(folder, checkpoint)
        differences = [line for line in config_diff(before, config) if line.split(":")[0] not in _FREE]
        problems = []
        if differences:
            problems.append(
                f"can't be continued with another setup: {'; '.join(differences)}; undo these changes "
                f"({run_to_resume(self.path) / 'config.yaml'} has none), or start a new run with another --run"
            )
        if checkpoint.state["index_digest"] != index.digest:
            problems.append(self._other_videos(config, index, folder))
        if problems:
            raise UsageError(f"{folder}: {'. Also: '.join(problems)}")
        return found

    def _other_videos(self, config: Config, index: VideoIndex, folder: Path) -> str:
        """That the run can't go on from `folder` as `index` is not as it was, and what can be done."""
        before, now = _planned_videos(self.path), _videos(config, index)
        counts = f" (then {_as_counts(before)}, now {_as_counts(now)})" if before and now and before != now else ""
        again = quoted(*rebuild_command(index.path, index.root, index.options), "--anew")
        new = quoted("r3d-fast", "train", "-c", self.path / "config.yaml", "-o", f"init.weights={folder}")
        return (
            f"can't be continued, as the videos, labels or splits in {index.path} have changed since the run "
            f"began{counts}; start a new run from its weights on what is there now: {new}; or bring the files in "
            f"{index.root} back to what they were, and index them as before: {again}"
        )


def check_run_folder(run: Path, *, is_new: bool) -> None:
    """Raise UsageError where a run can't be trained in the folder `run`, or, with `is_new`, can't begin there.

    Changes nothing.
    """
    with RunFolder(run) as folder:
        if is_new:
            folder.require_new()


def written_config(run: Path) -> Config | None:
    """The config in config.yaml of `run`; None if there is none that can be read."""
    path = run / "config.yaml"
    if path.is_file():
        with suppress(ConfigError):
            return load_config(path)
    return None


def _config_of(folder: Path, checkpoint: Checkpoint) -> Config:
    """The config of `checkpoint`, the one in `folder`.

    Raises CheckpointError where it lacks what a run goes on with.
    """
    missing = [key for key in ("index_digest", "records", "step", "epoch", "position") if key not in checkpoint.state]
    if missing:
        raise CheckpointError(
            f"{folder}: has no {missing[0]}: no training wrote it; start a new run from its weights with -o "
            f"init.weights={folder}"
        )
    try:
        return config_from_json(checkpoint.state["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder}: its config can't be used ({reason}); continue with the r3d-fast that wrote it"
        ) from error


def _planned_videos(run: Path) -> tuple[int, int] | None:
    """(videos to train on, to evaluate on) when the run in `run` began, by its plan; None where it has none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        videos = json.loads(read_regular(run / "plan.json", _MOST_BYTES))["videos"]
        return int(videos["train"]), int(videos["evaluate"])
    return None


def _videos(config: Config, index: VideoIndex) -> tuple[int, int] | None:
    """(videos to train on, to evaluate on) that `index` has now; None where it lacks one of the splits."""
    with suppress(DataError, UsageError):
        return len(index.columns(config.data.train_split)), len(index.columns(config.data.eval_split))
    return None


def _as_counts(videos: tuple[int, int]) -> str:
    return f"{videos[0]} videos to train on and {videos[1]} to evaluate on"


def _with_notes_of(path: Path, text: str) -> str:
    """`text` of a config, with the comments that the file at `path` has at the end of lines that are the same."""
    try:
        before = read_regular(path, MAX_BYTES).decode().splitlines()
    except (OSError, ValueError):
        return text
    # Each line of a dump has a place of its own, so lines are compared one by one.
    lines = text.splitlines()
    if len(before) == len(lines):
        lines = [old if old.startswith(f"{new}  # ") else new for old, new in zip(before, lines, strict=True)]
    return "\n".join(lines) + "\n"


def _lock(file: IO[str], run: Path) -> None:
    """Lock `file`, the open .lock of the folder `run`. Raises UsageError where another process has locked it."""
    for patience in (0.05, 0.1, None):  # seconds; `is_running` of r3d_fast/runs/history.py holds the lock an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A start that has failed removes the lock that it has made.
            if os.path.samestat(os.fstat(file.fileno()), (run / ".lock").stat()):
                return
            raise FileNotFoundError(run)
        except OSError as error:
            if patience is None:
                raise UsageError(
                    f"{run}: the run folder is in use by another process; wait or choose another --run"
                ) from error
            time.sleep(patience)


def _refuse_other_folders(path: Path, *, of_folds: bool) -> None:
    """Raise UsageError where `path` is a folder with files that no run writes: they could be replaced.

    Also where it holds a single run although it is to hold folds (`of_folds`), or the other way round.
    """
    try:
        names = {entry.name for entry in path.iterdir()} - {_LOGS}
        has_folder, has_checkpoints = "checkpoints" in names, bool(list_checkpoints(path))
        if has_folder and not any((path / "checkpoints").iterdir()):
            names.remove("checkpoints")  # of a start that was killed
    except OSError:  # not there yet, or no folder: `make_folder` says what is wrong
        return
    is_run, are_folds = has_checkpoints or bool(names & _OF_A_RUN), FOLDS in names
    if names and not is_run and not are_folds:
        raise UsageError(
            f"{path}: holds {len(names)} files or folders that are no run's, such as {min(names)}; "
            "expected a new folder, an empty one or the folder of a run; choose another --run"
        )
    if of_folds and not are_folds and (has_folder or names - {".lock"}):
        raise UsageError(f"{path}: holds a single run, not folds; choose another --run")
    if are_folds and not of_folds:
        raise UsageError(f"{path}: holds folds, not a single run; choose another --run")

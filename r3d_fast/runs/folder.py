"""The folder of a run: it is locked while a process writes it, describes the run, and says if the run can go on."""

from __future__ import annotations

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pipelines.errors import UsageError
from r3d_fast.config.config import Config, config_diff, config_from_json, dump_config
from r3d_fast.files import make_folder, write_errors, write_file
from r3d_fast.runs.environment import environment
from r3d_fast.weights.checkpoint import (
    Checkpoint,
    clean_leftovers,
    latest_checkpoint,
    list_checkpoints,
    set_aside_newer,
)

# Keys that may change when a run goes on, as they don't change what a step computes.
_FREE = {
    "data.root", "data.index", "data.max_bad_fraction", "loader.workers", "loader.threads", "loader.prefetch",
    "train.epochs", "train.device", "train.gpu_wait", "train.log_every_steps", "train.log_to",
    "train.checkpoint_every_steps", "train.checkpoint_every_minutes", "train.keep_checkpoints",
    "train.eval_every_epochs", "train.rank_timeout_seconds", "train.early_stop_evals", "train.max_minutes",
    "eval.views", "eval.crops", "eval.batch_size",
}  # fmt: skip
_HINT = "choose another --run"
# A run has at least one of these; `ranks` holds the logs of `train --nproc`, which come first.
_OF_A_RUN = {".lock", "checkpoints", "config.yaml", "ranks"}


class RunFolder:
    """The folder of a run, locked while it is open, so that two processes never write the same run."""

    def __init__(self, path: Path) -> None:
        """Create or open `path`.

        Raises UsageError if it holds anything but a run, if it can't be written, or if another process uses it.
        """
        self.path = path
        _refuse_other_folders(path)
        make_folder(path, _HINT)
        with write_errors(path, _HINT):
            (path / "checkpoints").mkdir(exist_ok=True)
            self._lock = (path / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UsageError(
                f"{path}: the run folder is in use by another process; wait or choose another --run"
            ) from error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def begin(self, config: Config) -> None:
        """Write config.yaml and env.json of a new run. Raises UsageError if the folder holds a run already."""
        if list_checkpoints(self.path) or (self.path / "metrics.jsonl").exists():
            raise UsageError(
                f"{self.path}: holds a run already; continue it with --resume auto, or choose another --run"
            )
        self.describe(config)

    def describe(self, config: Config) -> None:
        """Write config.yaml and env.json. What env.json held for earlier parts of the run is kept under `earlier`.

        Raises UsageError where the files can't be written.
        """
        values = environment()
        with suppress(OSError, ValueError):
            before = json.loads((self.path / "env.json").read_bytes())
            values["earlier"] = [*before.pop("earlier", []), before]
        for name, text in (("config.yaml", dump_config(config)), ("env.json", json.dumps(values, indent=1))):
            write_file(self.path / name, text.encode(), _HINT)

    def find_checkpoint(self, config: Config, digest: str) -> tuple[Checkpoint, list[str]] | None:
        """(newest checkpoint that is not damaged, complaints about newer ones); None if the run has none yet.

        Newer ones, which are damaged, are renamed, and the remains of killed writes are deleted. Raises UsageError,
        with the old and the new values, if the config or the data set differs from those of the checkpoint.
        """
        clean_leftovers(self.path)
        found = latest_checkpoint(self.path)
        if found is None:
            return None
        folder, checkpoint, complaints = found
        before = config_from_json(checkpoint.state["config"])
        differences = [line for line in config_diff(before, config) if line.split(":")[0] not in _FREE]
        if checkpoint.state["index_digest"] != digest:
            differences.append(
                f"index digest: {checkpoint.state['index_digest'][:12]} -> {digest[:12]} "
                "(other videos, labels or splits)"
            )
        if differences:
            raise UsageError(
                f"{folder}: can't be continued with another setup: {'; '.join(differences)}; "
                f"undo these changes (-c {self.path / 'config.yaml'} has none), or start a new run with another --run"
            )
        if complaints:
            complaints = [*complaints, f"{folder}: is not damaged, and is used instead"]
            set_aside_newer(self.path, folder)
        return checkpoint, complaints


def _refuse_other_folders(path: Path) -> None:
    """Raise UsageError where `path` is a folder with files that no run writes: they could be replaced."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError:  # not there yet, or no folder: `make_folder` says what is wrong
        return
    if names and not names & _OF_A_RUN:
        raise UsageError(
            f"{path}: holds {len(names)} files or folders that are no run's, such as {min(names)}; "
            "expected a new folder, an empty one or the folder of a run; choose another --run"
        )

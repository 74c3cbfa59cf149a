"""Writes checkpoints while training goes on: the training thread hands over a snapshot, another thread writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from r3d_fast.errors import CheckpointError
from r3d_fast.runs.fold_results import resume_hint
from r3d_fast.weights.checkpoint import Checkpoint, drop_old_checkpoints, list_checkpoints, save_checkpoint, step_folder

_PAUSE = 19  # after each piece of work the writer waits 19 times as long as it took, so that it uses 5 % of the machine


class CheckpointWriter:
    """Writes the checkpoints of a run in its own thread, one at a time, so that training never waits for the disk.

    At most two snapshots wait to be written: the newest best one and the newest step; a newer snapshot replaces one
    that still waits. The best is written first, because the state of a step names the best. A snapshot that can't be
    written keeps waiting: the user is told once, and it is tried again when the next snapshot comes and at the end. The
    last complete checkpoint stays on the disk.
    """

    def __init__(self, run: Path, keep: int, sync: Callable[[], None], say: Callable[[str], None]) -> None:
        """Start the thread. `keep`: how many step checkpoints stay on the disk.

        `sync` is called before each write; `say` shows the user a line.
        """
        self._run, self._keep, self._sync, self._say = run, keep, sync, say
        self._changed = threading.Condition()
        self._waiting: dict[str, Checkpoint] = {}  # "best", "step"
        self._busy = self._closed = False
        self._refused: tuple[Path, OSError] | None = None  # error of the disk: no write is tried until this is cleared
        self._error: BaseException | None = None  # any other error: raised in the training thread
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Have `checkpoint` written, as the run's best or under its step. Its arrays must not change any more.

        Raises an error that the thread met before, except errors of the disk, after which writing is tried again.
        """
        with self._changed:
            self._raise()
            self._waiting["best" if best else "step"] = checkpoint
            self._refused = None
            self._changed.notify_all()

    def finish(self) -> None:
        """Return when every snapshot is on the disk. Raises CheckpointError where the disk still refuses."""
        with self._changed:
            self._refused = None
            self._hurry.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._refused or not (self._busy or self._waiting))
            self._hurry.clear()
            self._raise()
            if refused := self._last_refusal():
                folder, error = refused
                raise CheckpointError(
                    f"{folder}: the last checkpoint can't be written ({error.strerror or error}); {self._saved()}; "
                    f"{resume_hint(self._run)(error)}"
                )

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits and end the thread. After an error of the run, that error is raised, not a later one."""
        try:
            self.finish()
        except Exception as problem:
            if error is None:
                raise
            if not isinstance(problem, CheckpointError):  # the user was told of an error of the disk already
                self._say(f"warning: {problem}")
        finally:
            with self._changed:
                self._closed = True
                self._waiting.clear()
                self._changed.notify_all()
            self._thread.join()

    def _saved(self) -> str:
        """What of the run is on the disk, in words."""
        folders = list_checkpoints(self._run)
        if not folders:
            return "no step is saved"
        return f"saved is {folders[-1]}, and what came after it has to be trained again"

    def _last_refusal(self) -> tuple[Path, OSError] | None:
        return self._refused

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        refusing = False
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or (self._waiting and self._refused is None))
                if self._closed:
                    return
                kind = "best" if "best" in self._waiting else "step"
                checkpoint = self._waiting.pop(kind)
                self._busy = True
            folder = self._run / "best" if kind == "best" else step_folder(self._run, checkpoint.state["step"])
            try:
                self._sync()
                save_checkpoint(folder, checkpoint, self._pause)
                if kind == "step":
                    drop_old_checkpoints(self._run, self._keep)
                if refusing:
                    refusing = False
                    self._say(f"{folder}: written; the disk takes checkpoints again")
            except OSError as error:
                if not refusing:
                    refusing = True
                    self._say(
                        f"warning: {folder}: can't be written ({error.strerror or error}); the checkpoint before it "
                        "stays, and saving is tried again at the next one"
                    )
                with self._changed:
                    self._waiting.setdefault(kind, checkpoint)
                    self._refused = (folder, error)
            except BaseException as error:
                with self._changed:
                    self._error = error

    def _pause(self, seconds: float) -> None:
        """Leave the machine to training after `seconds` of work, except while `finish` waits for the writer."""
        self._hurry.wait(_PAUSE * seconds)

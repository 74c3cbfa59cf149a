"""Checkpoints written beside training: the training thread hands over a snapshot and goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from r3d_fast.errors import CheckpointError
from r3d_fast.weights.checkpoint import Checkpoint, drop_old_checkpoints, save_checkpoint, step_folder

_PAUSE = 19  # times as long as a piece of the work took training has the machine to itself: saving gets 5 % of it


class CheckpointWriter:
    """Writes the checkpoints of a run on a thread of its own, one at a time; training waits for no disk.

    At most two snapshots wait: the newest step, which replaces an older one that is waiting still, and the newest best.
    The best goes first, so that no step on the disk tells of a best that is not there. What can't be written stays
    waiting, is said once, and is tried again when the next one comes and at the end; the last whole checkpoint stays.
    """

    def __init__(self, run: Path, keep: int, sync: Callable[[], None], say: Callable[[str], None]) -> None:
        """`keep`: step checkpoints left on the disk; `sync` is called before each write; `say` tells the user."""
        self._run, self._keep, self._sync, self._say = run, keep, sync, say
        self._changed = threading.Condition()
        self._waiting: dict[str, Checkpoint] = {}  # "best", "step"
        self._busy = self._closed = False
        self._refused: tuple[Path, OSError] | None = None  # by the disk: nothing is tried until something changes
        self._error: BaseException | None = None  # of our own making: training has to know
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Have `checkpoint` written, as the run's best or under its step. Its arrays must not change any more.

        Raises what went wrong on the thread before, but for a disk that refuses: that is said, and tried again.
        """
        with self._changed:
            self._raise()
            self._waiting["best" if best else "step"] = checkpoint
            self._refused = None
            self._changed.notify_all()

    def finish(self) -> None:
        """Return when all that was handed over is on the disk. Raises CheckpointError where the disk still refuses."""
        with self._changed:
            self._refused = None
            self._hurry.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._refused or not (self._busy or self._waiting))
            self._hurry.clear()
            self._raise()
            if refused := self._last_refusal():
                folder, error = refused
                raise CheckpointError(f"{folder}: the last checkpoint can't be written ({error.strerror or error})")

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread once nothing waits; after an error of the run that one counts, not what follows here."""
        try:
            self.finish()
        except Exception as problem:
            if error is None:
                raise
            if not isinstance(problem, CheckpointError):  # a refusal was said already
                self._say(f"warning: {problem}")
        finally:
            with self._changed:
                self._closed = True
                self._waiting.clear()
                self._changed.notify_all()
            self._thread.join()

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
        """Leave the machine to training, after `seconds` of work; not when training waits for us."""
        self._hurry.wait(_PAUSE * seconds)

"""Curves of the numbers in metrics.jsonl, for VisualDL, TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from r3d_fast.config.sections import BACKENDS, Backend
from r3d_fast.runs.remote_runs import REMOTES, known_run, open_remote_run
from r3d_fast.runs.sender import Sender

_NO_CURVE = ("kind", "epoch", "step")
_LONGEST = 300  # characters of another program's error message
_EXTRAS = "pip install 'r3d-fast[{}]'"


class _Writer(Protocol):
    def add(self, values: Mapping[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class _Files:
    """The curves of VisualDL or TensorBoard, in a new folder."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._writer: Any
        with warnings.catch_warnings():
            # The user can't do anything about deprecations inside these packages.
            warnings.simplefilter("ignore")
            if backend == "visualdl":
                from visualdl import LogWriter

                self._writer = LogWriter(logdir=str(folder))
            else:
                from tensorboard.summary import Writer

                self._writer = Writer(str(folder))

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class ScalarLogs:
    """Curves in RUN/visualdl and RUN/tensorboard, and in remote runs. One that can't be written is left out.

    There is one warning for it, and the training goes on.
    """

    def __init__(
        self,
        run: Path,
        wanted: Literal["auto"] | Sequence[Backend],
        records: Iterable[dict[str, Any]],
        say: Callable[[str], None],
        every: int = 1,
    ) -> None:
        """Begin with the curves of `records`: files of the run are replaced, a remote run that is known goes on.

        `wanted`: the backends ("auto": those that write files, where they are installed). `say` shows the user a line.
        Only every `every`-th training step is drawn, as each number takes both kinds of files together about 0.4 ms.
        """
        self._say, self._every = say, every
        self._writers: dict[Backend, _Writer] = {}
        earlier = list(records)
        for backend in BACKENDS if wanted == "auto" else wanted:
            if wanted == "auto" and (backend in REMOTES or find_spec(backend) is None):
                continue
            # A remote run has the records of earlier: those after the checkpoint are sent again, and are the same.
            is_known = backend in REMOTES and known_run(run, backend) is not None
            self._try(backend, partial(self._open, backend, run))
            for record in () if is_known else earlier:
                self._write(backend, record)

    def write(self, record: dict[str, Any]) -> None:
        """Add the numbers of a record to their curves, named KIND/KEY."""
        for backend in tuple(self._writers):
            self._write(backend, record)

    def close(self) -> None:
        """Write what is still in memory."""
        for backend in tuple(self._writers):
            self._try(backend, self._writers[backend].close)
        self._writers.clear()

    def _open(self, backend: Backend, run: Path) -> None:
        if backend in REMOTES:
            self._writers[backend] = Sender(partial(open_remote_run, run, backend), partial(self._warn, backend))
        else:
            self._writers[backend] = _Files(backend, run / backend)

    def _write(self, backend: Backend, record: dict[str, Any]) -> None:
        if backend not in self._writers or (record["kind"] == "train" and record["step"] % self._every):
            return
        values = {
            f"{record['kind']}/{key}": float(value)
            for key, value in record.items()
            if key not in _NO_CURVE and isinstance(value, (int, float))
        }
        self._try(backend, partial(self._writers[backend].add, values, record["step"]))

    def _try(self, backend: Backend, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # an error of a backend must not end the run
            self._writers.pop(backend, None)
            self._warn(backend, error)

    def _warn(self, backend: Backend, error: Exception) -> None:
        missing = isinstance(error, ImportError) and find_spec(backend) is None
        reason = " ".join(str(error).split())[:_LONGEST]
        what = f"not installed: {_EXTRAS.format(backend)}" if missing else f"{type(error).__name__}: {reason}"
        self._say(f"warning: no curves for {backend} in this run ({what})")

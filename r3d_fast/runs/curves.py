"""Curves of the numbers in metrics.jsonl, for VisualDL and TensorBoard where these are installed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from r3d_fast.config.sections import BACKENDS, Backend

_NO_CURVE = ("kind", "epoch", "step")
_EXTRAS = "pip install 'r3d-fast[{}]'"


class ScalarLogs:
    """Curves under RUN/visualdl and RUN/tensorboard. One that can't be written is left out, after one warning."""

    def __init__(
        self,
        run: Path,
        wanted: Literal["auto"] | Sequence[Backend],
        records: Iterable[dict[str, Any]],
        say: Callable[[str], None],
        every: int = 1,
    ) -> None:
        """Start new files that begin with the curves of `records`; earlier files of the run are replaced.

        `wanted`: the backends ("auto": those that are installed). `say` shows the user a line. Only every `every`-th
        training step is drawn, as each number takes both backends together about 0.4 ms.
        """
        self._say, self._every = say, every
        self._writers: dict[Backend, Any] = {}
        for backend in BACKENDS if wanted == "auto" else wanted:
            if wanted == "auto" and find_spec(backend) is None:
                continue
            folder = run / backend
            shutil.rmtree(folder, ignore_errors=True)
            self._try(backend, lambda name=backend, into=folder: self._open(name, into))  # type: ignore[misc]
        for record in records if self._writers else ():
            self.write(record)

    def write(self, record: dict[str, Any]) -> None:
        """Add the numbers of a record to their curves, named KIND/KEY."""
        if record["kind"] == "train" and record["step"] % self._every:
            return
        for backend in tuple(self._writers):
            self._try(backend, lambda name=backend: self._add(self._writers[name], record))  # type: ignore[misc]

    def close(self) -> None:
        """Write what is still in memory."""
        for backend in tuple(self._writers):
            self._try(backend, self._writers[backend].close)
        self._writers.clear()

    def _open(self, backend: Backend, folder: Path) -> None:
        with warnings.catch_warnings():
            # The user can't do anything about deprecations inside these packages.
            warnings.simplefilter("ignore")
            if backend == "visualdl":
                from visualdl import LogWriter

                self._writers[backend] = LogWriter(logdir=str(folder))
            else:
                from tensorboard.summary import Writer

                self._writers[backend] = Writer(str(folder))

    @staticmethod
    def _add(writer: Any, record: dict[str, Any]) -> None:
        for key, value in record.items():
            if key not in _NO_CURVE and isinstance(value, (int, float)):
                writer.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def _try(self, backend: Backend, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # an error of a backend must not end the run
            self._writers.pop(backend, None)
            missing = isinstance(error, ImportError) and find_spec(backend) is None
            what = f"not installed: {_EXTRAS.format(backend)}" if missing else f"{type(error).__name__}: {error}"
            self._say(f"warning: no curves for {backend} in this run ({what})")

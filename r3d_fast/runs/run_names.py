"""The folders of the runs that have a name: runs/NAME, then runs/NAME-2, runs/NAME-3, and so on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.output.folders import make_folder
from pipelines.output.undoing import undone

RUNS = Path("runs")


def check_run_name(name: str) -> str:
    """`name`, which can be that of a folder in runs/. Raises UsageError if it can't."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UsageError(f"--name {name!r}: expected the name of a folder in {RUNS}/, without a slash")
    return name


@contextmanager
def claimed_run(name: str) -> Iterator[Path]:
    """The first folder of the runs called `name` that is not there yet; it is made, so that no other run takes it.

    Where the block ends with an error before the folder describes a run, it is removed again. Raises UsageError where
    it can't be made.
    """
    is_first = not RUNS.exists()
    make_folder(RUNS, "choose another place with --run")
    for folder in _folders(name):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{folder}: can't be made ({error.strerror}); choose another place with --run") from error
        break
    undo = partial(_remove, folder, with_runs=is_first)
    try:
        with undone(undo):
            yield folder
    finally:
        undo()


def _remove(folder: Path, *, with_runs: bool) -> None:
    """Remove the folder of a run that has not begun, and an empty folder of runs; what anyone has put there stays."""
    with suppress(OSError):
        if not (folder / "config.yaml").exists():
            (folder / ".lock").unlink(missing_ok=True)
            if (folder / "checkpoints").exists():
                (folder / "checkpoints").rmdir()
            folder.rmdir()
            if with_runs:
                RUNS.rmdir()


def newest_run(name: str) -> Path | None:
    """The last of the runs called `name`; None if there is none."""
    newest = None
    for folder in _folders(name):
        if not folder.exists():
            return newest
        if (folder / "config.yaml").is_file():
            newest = folder
    raise AssertionError("unreachable")


def _folders(name: str) -> itertools.chain[Path]:
    numbered = (RUNS / f"{name}-{number}" for number in itertools.count(2))
    return itertools.chain([RUNS / name], numbered)

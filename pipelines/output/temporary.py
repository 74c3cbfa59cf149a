"""Folders for files that nobody needs once a task is done: gone when it ends, and after a kill soon as well."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pipelines.output.hidden import MARK, NEW, delete_unheld, hold
from pipelines.output.places import write_errors
from pipelines.output.undoing import undone

_made: set[Path] = set()  # those of this process that are there


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder in the system's place for temporary files, which only this user may read; deleted after the block.

    Its process holds a lock on it. Folders whose process was killed have none, and are deleted first. Raises UsageError
    where none can be made.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{MARK}*{NEW}"):
        delete_unheld(left, folders=True)
    with write_errors(place / f"{MARK}*", "set TMPDIR to a folder with room"):
        folder, lock = _new_folder()
    _made.add(folder)
    try:
        with undone(partial(shutil.rmtree, folder, ignore_errors=True)):
            yield folder
    finally:
        _made.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def is_temporary(path: Path) -> bool:
    """Whether `path` lies in a folder that this process made by `temporary_folder` and will delete."""
    return not _made.isdisjoint(path.parents)


def _new_folder() -> tuple[Path, int]:
    """(a new folder, the descriptor that locks it). Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=MARK, suffix=NEW))
        # Until it is held, another process that looks for what nobody holds may delete it.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if hold(folder, lock):
                return folder, lock
            os.close(lock)

"""What has to be undone where the process ends at once, without the ends of its blocks: temporary files, the cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_undoings: list[Callable[[], object]] = []  # the last one is undone first


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """A block in which `undo` is called where a signal ends the process at once; at the end of the block it is not."""
    _undoings.append(undo)
    try:
        yield
    finally:
        _undoings.remove(undo)


def undo_all() -> None:
    """Undo what is to be undone now. Errors are ignored, as the process ends."""
    for undo in reversed(_undoings.copy()):
        with suppress(Exception):
            undo()


def delete_file(path: Path) -> None:
    """Delete the file at `path`, if it is there and can be."""
    with suppress(OSError):
        path.unlink()

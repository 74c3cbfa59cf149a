"""Files that are there whole or not at all, and names for them that stay in their folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import UsageError

_LONGEST_STEM = 180  # bytes; file systems take 255, and there come a suffix and a number


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, `path` once the block has ended well; what stood there before stays until then.

    A device or a pipe is written as it is. Raises UsageError where it can't be written.
    """
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise UsageError(f"{path}: can't be written: it is a folder; expected a file")
        with _problems(path), path.open("wb") as pipe:
            yield pipe
        return
    # A link is to be written through, not replaced.
    target = path.resolve() if path.is_symlink() else path
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _problems(path):
        file = building.open("w+b")
    try:
        with _problems(path), file:
            yield file
            file.flush()
        with _problems(path):
            building.replace(target)
    except BaseException:
        with suppress(OSError):
            building.unlink()
        raise


@contextmanager
def _problems(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # stdout's: whoever read it has gone
        raise
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror or error}") from error


@contextmanager
def csv_rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """What writes rows of a CSV to `file`, as they come, after a first one of `columns`.

    Of names that are no Unicode the odd bytes are escaped.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    try:
        yield rows.writerow
    finally:
        text.flush()
        text.detach()


class Names:
    """Names of files in one folder, after those of videos, whatever these hold; each once."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """Make the folder. Raises UsageError where it can't be."""
        self._folder, self._suffix = folder, suffix
        self._taken: set[str] = set()
        with _problems(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def of(self, video: str) -> Path:
        """The file for a video: `FOLDER/NAMEsuffix`, of a second one of that name `FOLDER/NAME-2suffix`."""
        name = os.path.splitext(os.path.basename(video))[0]  # noqa: PTH119, PTH122 - a name may hold anything
        plain = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name).strip().lstrip(".-")
        stem = plain.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore") or "video"
        chosen, number = stem, 1
        while chosen.lower() in self._taken:
            number += 1
            chosen = f"{stem}-{number}"
        self._taken.add(chosen.lower())
        return self._folder / f"{chosen}{self._suffix}"


def plain_text(name: str) -> str:
    """`name` as valid UTF-8: bytes of a file's name that are none become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")

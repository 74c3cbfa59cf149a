"""Reads the text files of a data set, with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.errors import ListError
from pipelines.input.regular_files import read_regular
from pipelines.plain_text import plain

MOST_BYTES = 1 << 30  # of a list; the JSON of ActivityNet's 20,000 videos has 11 MB, the CSV of Kinetics-700 45 MB


def read_text(file: Path) -> str:
    """The text of a list file, without a byte order mark. Raises ListError if it can't be read or is not UTF-8."""
    try:
        if not file.is_file():
            raise ListError(f"{escaped(file)}: missing or not a regular file; expected a text file")
        data = read_regular(file, MOST_BYTES)
    except OSError as problem:
        raise ListError(f"{escaped(file)}: {problem.strerror}; expected a readable text file") from problem
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ListError(f"{escaped(file)}:{line}: not UTF-8; expected text in UTF-8") from problem


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. Empty if it can't be listed: a folder may be entered but not listed."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, as (number, line). Only a line feed ends a line, since a name may hold U+2028."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.rstrip():
            yield number, stripped


def escaped(path: str | Path) -> str:
    """The path for a one-line message: by `plain`, and then in quotes, if not all of it is printable."""
    text = str(path)
    return text if text.isprintable() else f"'{plain(text)}'"


def first_ten(names: Sequence[str]) -> str:
    """The first ten names, joined by commas, with an ellipsis if there are more."""
    return ", ".join(escaped(n) for n in names[:10]) + (", ..." if len(names) > 10 else "")

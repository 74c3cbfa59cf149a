"""Text files of a data set, read with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.errors import ListError


def read_text(file: Path) -> str:
    """The text of a list file without its byte order mark; ListError if it can't be read as UTF-8."""
    try:
        # Opening a FIFO waits for ever.
        data = file.read_bytes() if file.is_file() else None
    except OSError as problem:
        raise ListError(f"{escaped(file)}: {problem.strerror}; expected a readable text file") from problem
    if data is None:
        raise ListError(f"{escaped(file)}: missing or not a regular file; expected a text file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ListError(f"{escaped(file)}:{line}: not UTF-8; expected text in UTF-8") from problem


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number; only a line feed ends a line: a name may hold U+2028."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.rstrip():
            yield number, stripped


def escaped(path: str | Path) -> str:
    """The path as part of a one-line message: quoted and escaped where it holds line ends or bytes that don't print."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def first_ten(names: Sequence[str]) -> str:
    """The first ten names, joined, with an ellipsis where there are more."""
    return ", ".join(escaped(n) for n in names[:10]) + (", ..." if len(names) > 10 else "")

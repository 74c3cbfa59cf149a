"""CSV tables that do nothing where a spreadsheet opens them: the one place where CSV is written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that spreadsheets may run (OWASP, CSV Injection)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def harmless(cell: Any) -> Any:
    """`cell` as it is, but for a text that a spreadsheet could take for a formula: that gets a ' before it.

    Texts of numbers, such as -1.5, stay as they are.
    """
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def csv_text(rows: Iterable[Sequence[Any]], line_end: str = "\n") -> str:
    """`rows` as CSV, each with `line_end` at its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


@contextmanager
def csv_rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """A function that writes one row of a CSV table to `file`; the header row `columns` is written before.

    Bytes of a file name that are not valid UTF-8 are written as escapes.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    text.write(csv_text([columns]))
    try:
        yield lambda row: text.write(csv_text([row]))
    finally:
        text.flush()
        text.detach()

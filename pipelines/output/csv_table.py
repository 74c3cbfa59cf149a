"""CSV tables that do nothing where a terminal shows or a spreadsheet opens them: the one place where they are written.

Lists of videos, which are read again, are no tables: they have names as they are (pipelines/checks/clean_lists.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from pipelines.plain_text import plain

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that spreadsheets may run (OWASP, CSV Injection)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def harmless(cell: Any) -> Any:
    """`cell` as it is, but for a text: that is made plain, and one that could be a formula gets a ' before it.

    Line breaks within a text stay, as they are quoted. Texts of numbers, such as -1.5, stay as they are.
    """
    if not isinstance(cell, str):
        return cell
    shown = plain(cell, keep="\n")
    return f"'{shown}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else shown


def csv_text(rows: Iterable[Sequence[Any]], line_end: str = "\n") -> str:
    """`rows` as CSV, each with `line_end` at its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


@contextmanager
def csv_rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """A function that writes one row of a CSV table to `file`; the header row `columns` is written before."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    text.write(csv_text([columns]))
    try:
        yield lambda row: text.write(csv_text([row]))
    finally:
        text.flush()
        text.detach()

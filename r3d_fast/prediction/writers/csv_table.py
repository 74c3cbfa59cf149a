"""CSV tables, written row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO


@contextmanager
def csv_rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """A function that writes one row of a CSV table to `file`; the header row `columns` is written before.

    Bytes of a file name that are not valid UTF-8 are written as escapes.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    try:
        yield rows.writerow
    finally:
        text.flush()
        text.detach()

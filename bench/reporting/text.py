"""Pieces of text that reports are made of: figures with the digits that mean something, tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

UNKNOWN = "-"


def as_rate(value: float) -> str:
    """Clips or frames per second with the digits that mean something."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def known(value: float | None, scale: float, digits: int) -> str:
    """The value times `scale`, with so many digits; a dash where it isn't known."""
    return UNKNOWN if value is None else f"{value * scale:.{digits}f}"


def count(number: int, what: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each value, however deep; lists of plain values stay in one piece."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from flat(value, f"{prefix}, {key}" if prefix else str(key))
    elif isinstance(values, list) and any(isinstance(value, dict | list) for value in values):
        for number, value in enumerate(values, 1):
            yield from flat(value, f"{prefix} {number}".strip())
    elif isinstance(values, list):
        yield prefix, ", ".join(_plain(value) for value in values)
    else:
        yield prefix, _plain(values)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return value if isinstance(value, str) else json.dumps(value)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns of equal width: the first and the last to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if number in (0, last) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """A Markdown table; the columns in `right` hold figures."""
    rule = ["---:" if number in right else "---" for number in range(len(rows[0]))]
    clean = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [clean[0], rule, *clean[1:]])

"""Completeness: what of a file's pictures is missing, in words."""

from __future__ import annotations

from dataclasses import dataclass

# Remarks.
INDEX_MISSING = "index missing"
INDEX_CUT = "index cut short"
_UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB"))


@dataclass(frozen=True)
class Completeness:
    """What is missing of the pictures of a file, and what else is odd about it, as far as its container can tell."""

    missing: str = ""  # "" if all pictures are there; else in words, such as "its last 83 KB of 208 KB are missing"
    remarks: tuple[str, ...] = ()  # what is odd though all pictures are there, such as "index missing"


WHOLE = Completeness()


def ends_before(size: int, expected: int) -> Completeness:
    """The verdict on a file of `size` bytes whose pictures reach up to the byte `expected`."""
    return Completeness(f"its last {_amount(expected - size)} of {_amount(expected)} are missing")


def ends_within(what: str) -> Completeness:
    """The verdict on a file that ends within `what`, such as "a picture", where nothing says how long it was."""
    return Completeness(f"it ends in the middle of {what}")


def _amount(size: int) -> str:
    """`size` in bytes as text, such as "83 KB"."""
    for unit, name in _UNITS:
        if size >= unit:
            number = size / unit
            return f"{number:.1f} {name}" if number < 10 and unit > 1_000 else f"{number:.0f} {name}"
    return f"{size} byte" + "s" * (size != 1)

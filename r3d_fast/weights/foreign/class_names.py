"""Names of classes out of a text file: one a line, or numbered as in classInd.txt and in Kinetics' lists."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from r3d_fast.errors import CheckpointError

_MOST_BYTES = 1 << 20
_NUMBERED = re.compile(r"(\d{1,6})[ \t,;]+(\S.*)")
_HEADERS = {"id", "index", "label", "class", "class_id", "name", "class_name"}


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in `path`, in the order of the network's outputs.

    One a line; or each with its number, from 0 or 1 on, as `1 ApplyEyeMakeup` (UCF-101's classInd.txt), or in a CSV
    with the number first or last, with or without a header. Raises CheckpointError where they can't be read, or a name
    or a number is missing or there twice.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{path}: no file of class names; expected one name a line")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 at byte {error.start}; expected one class name a line") from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and (path.suffix.lower() == ".csv") and set(re.split("[,;]", lines[0].lower())) <= _HEADERS:
        lines = lines[1:]
    numbered = [_numbered(line) for line in lines]
    names = _ordered(numbered, path) if all(numbered) else lines
    double = next((name for name in names if names.count(name) > 1), None)
    if not names or double is not None:
        raise CheckpointError(f"{path}: {f'class {double!r} is there twice' if names else 'no class names in it'}")
    return tuple(names)


def _numbered(line: str) -> tuple[int, str] | None:
    """(number, name) of a line that has both."""
    match = _NUMBERED.fullmatch(line)
    if match:
        return int(match[1]), next(csv.reader([match[2]]))[0] if match[2].startswith('"') else match[2]
    cells = next(csv.reader([line]))
    if len(cells) == 2 and cells[1].strip().isdecimal():
        return int(cells[1]), cells[0].strip()
    return None


def _ordered(numbered: list[tuple[int, str] | None], path: Path) -> list[str]:
    pairs = sorted(pair for pair in numbered if pair is not None)
    numbers = [number for number, _ in pairs]
    first = numbers[0] if numbers else 0
    if first not in (0, 1) or numbers != list(range(first, first + len(numbers))):
        raise CheckpointError(
            f"{path}: its numbers go from {first} to {numbers[-1]} for {len(numbers)} names; expected each once, from "
            "0 or 1 on"
        )
    return [name for _, name in pairs]

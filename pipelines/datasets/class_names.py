"""Reads the names of classes: numbered, as in UCF-101's classInd.txt and in tables, one on each line, or as JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator

from pipelines.datasets.text_files import text_lines
from pipelines.errors import ListError

_NUMBER = re.compile("[0-9]{1,9}")
_NUMBERED = re.compile(r"([0-9]{1,9})[ \t,;]+(\S.*)")


def parse_class_ind(text: str, file: str) -> tuple[str, ...]:
    """The class names in the text of a UCF classInd.txt, with lines such as ``1 Lunges``, in the order of the numbers.

    `file` is the name for error messages. Raises ListError, with the line, unless each line has a number and a name
    and the numbers are 1..C, each once.
    """
    lines = _without_comments(text)
    for number, line in lines:
        if _numbered(line) is None:
            raise ListError(f"{file}:{number}: {line!r}; expected '<number> <class>', numbers from 1")
    return _by_number(lines, file, first=(1,))


def parse_class_names(text: str, file: str) -> tuple[str, ...]:
    """The class names in a text of any common form.

    If all lines have a number, the names are in the order of the numbers, else in the order of the lines. The number
    comes first, as in classInd.txt, or in the last column of a table; numbers begin at 0 or 1. Raises ListError, with
    the line, if a name or a number is missing or appears twice.
    """
    lines, numbered = list(text_lines(text)), _without_comments(text)
    if not lines or (numbered and all(_numbered(line) for _, line in numbered)):
        return _by_number(numbered, file, first=(0, 1))
    names = [line.strip() for _, line in lines]
    for place, (number, line) in enumerate(lines):
        if names[place] in names[:place]:
            raise ListError(f"{file}:{number}: {line!r} repeats a class; expected each once")
    return tuple(names)


def parse_class_json(text: str, file: str) -> tuple[str, ...]:
    """The class names in JSON: a list of them, or an object that gives each name its number, or each number its name.

    Numbers begin at 0 or 1, and may be text. Quotation marks that are part of a name, as in PySlowFast's
    kinetics_classnames.json, are taken off. Raises ListError if it is something else, or if a name or a number is
    missing or appears twice.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as problem:
        at = f":{problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""
        raise ListError(f"{file}{at}: no valid JSON; expected the names of classes with their numbers") from problem
    names: dict[int, str] = {}
    for number, name in _json_pairs(content, file):
        if number in names or name in names.values():
            raise ListError(f"{file}: class {name!r}, number {number}: one of them is there twice; expected each once")
        names[number] = name
    return _in_order(names, file, first=(0, 1))


def _json_pairs(content: object, file: str) -> Iterator[tuple[int, str]]:
    """Each class as (number, name)."""
    if isinstance(content, list):
        content = {str(name): number for number, name in enumerate(content)}
    if not isinstance(content, dict):
        raise ListError(f"{file}: {str(content)[:60]!r}; expected a JSON object of class names and their numbers")
    for key, value in content.items():
        name, number = (key, str(value)) if _NUMBER.fullmatch(str(value)) else (str(value), key)
        if not _NUMBER.fullmatch(number):
            raise ListError(f"{file}: {key!r}: {str(value)[:60]!r}; expected a class name and its number")
        yield int(number), name.strip('"') or name


def _without_comments(text: str) -> list[tuple[int, str]]:
    lines = ((number, line.strip()) for number, line in text_lines(text))
    return [(number, line) for number, line in lines if not line.startswith("#")]


def _numbered(line: str) -> tuple[int, str] | None:
    """(number, name) of a line that has both, else None."""
    match = _NUMBERED.fullmatch(line)
    if match:
        return int(match[1]), next(csv.reader([match[2]]))[0] if match[2].startswith('"') else match[2]
    cells = next(csv.reader([line]))
    if len(cells) == 2 and _NUMBER.fullmatch(cells[1].strip()):
        return int(cells[1]), cells[0].strip()
    return None


def _by_number(lines: list[tuple[int, str]], file: str, first: tuple[int, ...]) -> tuple[str, ...]:
    """The names of numbered lines in the order of their numbers; the first number must be one of `first`."""
    names: dict[int, str] = {}
    for at, line in lines:
        number, name = _numbered(line) or (-1, "")
        if number in names or name in names.values():
            raise ListError(f"{file}:{at}: {line!r} repeats a number or a class; expected each once")
        names[number] = name
    return _in_order(names, file, first)


def _in_order(names: dict[int, str], file: str, first: tuple[int, ...]) -> tuple[str, ...]:
    """The names in the order of their numbers. Raises ListError unless they go on from one of `first`."""
    if not names:
        raise ListError(f"{file}: no class names in it; expected a line for each class")
    least, most = min(names), max(names)
    if least not in first or most - least != len(names) - 1:
        begin = " or ".join(map(str, first))
        raise ListError(
            f"{file}: {len(names)} classes, numbered {least} to {most}; expected each number once, from {begin} on"
        )
    return tuple(names[number] for number in sorted(names))

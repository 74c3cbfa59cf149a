"""Finds the list files of one of the numbered splits of a data set, such as trainlist01.txt."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipelines.datasets.lists.listed_videos import ListedVideo
from pipelines.datasets.text_files import escaped
from pipelines.errors import ListError


def lists_by_split(names: Sequence[str], pattern: re.Pattern[str]) -> dict[int, dict[str, str]]:
    """The names of the list files, by the number and then by the first word in them."""
    lists: dict[int, dict[str, str]] = defaultdict(dict)
    for name in names:
        if match := pattern.fullmatch(name):
            lists[int(match[2])][match[1]] = name
    return lists


def check_split(folder: Path, split: int, there: Collection[int]) -> None:
    """Raise ListError, with the numbers of the splits that are `there`, unless `split` is one of them."""
    if split not in there:
        known = ", ".join(str(n) for n in sorted(there)) or "none (each split needs a train and a test list)"
        raise ListError(f"lists {escaped(folder)}: split {split} is not there; expected one of these: {known}")


def not_empty(found: Iterator[ListedVideo], file: Path) -> list[ListedVideo]:
    """The rows of one file as a list. Raises ListError if there is none."""
    if rows := list(found):
        return rows
    raise ListError(f"{escaped(file)}: no entries; expected one video a line")

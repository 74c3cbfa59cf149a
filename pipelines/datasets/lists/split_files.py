"""Finds the lists of a folder that are named for their splits, such as train.txt and k400_val_list_videos.txt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.lists.numbered_lists import check_split
from pipelines.datasets.split_names import split_named
from pipelines.datasets.text_files import escaped, first_ten
from pipelines.errors import UsageError

SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".list")
_NUMBER = re.compile(r"split[-_ ]?([0-9]{1,4})(?![0-9])", re.IGNORECASE)
_FRAMES = {"frames", "rawframes", "rawframe", "flow"}


@dataclass(frozen=True)
class SplitFiles:
    """The list files of a folder, each with its split; the number of the split that was taken; and warnings."""

    files: tuple[tuple[Path, str], ...]
    number: int | None
    warnings: tuple[str, ...]


def split_of_name(name: str) -> str:
    """The split among the words of a file name: "train" of ``ucf101_train_split_1_videos.txt``; "" if none or two.

    A word may have "list" behind it, as in ``trainlist.txt``.
    """
    words = re.split(r"[^a-z]+", Path(name).stem.lower())
    splits = {split_named(word) or split_named(word.removesuffix("list")) for word in words} - {""}
    return splits.pop() if len(splits) == 1 else ""


def find_split_files(folder: Path, names: Sequence[str], split: int | None) -> SplitFiles:
    """The lists among the files `names` of `folder`, which is without any if no name has a split.

    Of numbered lists those of the number `split` are taken (default: 1). Lists of frames are left aside where the same
    split has another list. Raises ListError if the number is not there, UsageError if no list has a number.
    """
    found = [(name, split_of_name(name)) for name in names if Path(name).suffix.lower() in SUFFIXES]
    found = [(name, side) for name, side in found if side]
    numbers = {name: int(match[1]) for name, _ in found if (match := _NUMBER.search(Path(name).stem))}
    warnings: list[str] = []
    taken: int | None = None
    if numbers:
        taken = 1 if split is None else split
        sides = {number: {side for name, side in found if numbers.get(name) == number} for number in numbers.values()}
        check_split(folder, taken, [number for number, those in sides.items() if "train" in those and len(those) > 1])
        if unnumbered := [name for name, _ in found if name not in numbers]:
            warnings.append(f"lists without the number of a split are left out: {first_ten(unnumbered)}")
        found = [(name, side) for name, side in found if numbers.get(name) == taken]
    elif found and split is not None:
        raise UsageError(f"split {split} with {escaped(folder)}: its lists have no numbers; leave split out")
    plain = [(name, side) for name, side in found if not _FRAMES & set(re.split(r"[^a-z]+", name.lower()))]
    covered = {side for _, side in plain}
    kept = plain + [(name, side) for name, side in found if side not in covered]
    return SplitFiles(tuple((folder / name, side) for name, side in sorted(kept)), taken, tuple(warnings))

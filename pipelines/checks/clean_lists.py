"""Writes lists of the videos of an index that are of use, without those that a check found to be broken or to leak."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.checks.check import Check
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.output.folders import new_folder

_KEEPS = ("test", "val", "train")  # of videos that leak from one split into another, those of the first one stay


@dataclass(frozen=True)
class CleanLists:
    """The list files by name, each with its content, and the videos that they leave out, each with the reason."""

    files: Mapping[str, str]
    left_out: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write the lists to `folder`, which is made. Raises UsageError if it can't be."""
        with new_folder(folder) as building:
            for name, content in self.files.items():
                (building / name).write_text(content, encoding="utf-8", errors="surrogateescape", newline="")


def check_free(folder: Path) -> None:
    """Raise UsageError unless `folder` is empty or not there: lists that someone else made are not replaced."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder}: already there; expected a new or an empty folder for the lists")


def clean_lists(index: VideoIndex, check: Check, most_corrupt: float) -> CleanLists:
    """The lists of `index` without the videos that `check` found to be broken, to be copies or to leak.

    Broken are those that can't be read, are in quarantine, or have more than the share `most_corrupt` of damaged
    frames. Of copies one stays, and of the videos of one recording those in one split: in the test split if they are
    there. Copies in several classes all leave, since a label is wrong. The lists have the form of UCF-101's where the
    folders of the videos are the classes and the splits train and test; else there is a CSV for each split.
    Raises UsageError for an index of parts of files.
    """
    names = index.names()
    if any("#t=" in name for name in names) and any(index[i].span is not None for i in range(len(names))):
        raise UsageError(f"{index.path}: it has parts of files; lists can be written of whole files only")
    left_out = _broken(check, most_corrupt)
    _leave_copies(check, left_out)
    _leave_leaks(index, names, left_out)
    labels = index.columns().label.tolist()
    kept: dict[str, list[tuple[str, int]]] = {}
    for split in index.splits:
        numbers = index.columns(split).video_id.tolist()
        kept[split] = [(names[number], labels[number]) for number in numbers if names[number] not in left_out]
    is_ucf = set(kept) == {"train", "test"} and all(kept.values()) and _are_in_class_folders(kept, index.classes)
    files = _ucf(kept, index.classes) if is_ucf else _csv(kept, index.classes)
    return CleanLists(files, dict(sorted(left_out.items())))


def _broken(check: Check, most_corrupt: float) -> dict[str, str]:
    found = {item.name: item.reason for item in check.unreadable}
    found |= {name: f"damaged: {detail}" for name, detail in check.damaged(most_corrupt).items()}
    return found | {name: f"in quarantine: {reason}" for name, reason in check.quarantined.items()}


def _leave_copies(check: Check, left_out: dict[str, str]) -> None:
    for copies in check.copies:
        places = zip(copies.splits, copies.paths, strict=True)
        usable = [(split, path) for split, path in places if path not in left_out]
        if len(set(copies.classes)) > 1:
            left_out |= {path: f"copied into another class: {' = '.join(copies.paths)}" for _, path in usable}
        elif usable:
            _, stays = min(usable, key=lambda item: (_rank(item[0]), item[1]))
            left_out |= {path: f"a copy of {stays}" for _, path in usable if path != stays}


def _leave_leaks(index: VideoIndex, names: Sequence[str], left_out: dict[str, str]) -> None:
    groups = index.groups()
    splits_of: dict[int, str] = {}
    members: dict[str, list[tuple[str, str]]] = {}
    for split in index.splits:
        splits_of |= dict.fromkeys(index.columns(split).video_id.tolist(), split)
    for number, split in splits_of.items():
        if groups[number] and names[number] not in left_out:
            members.setdefault(groups[number], []).append((split, names[number]))
    for group, videos in members.items():
        stays = min((split for split, _ in videos), key=_rank)
        left_out |= {name: f"of the recording {group}, as a {stays} video" for split, name in videos if split != stays}


def _rank(split: str) -> int:
    return _KEEPS.index(split) if split in _KEEPS else len(_KEEPS)


def _are_in_class_folders(kept: Mapping[str, list[tuple[str, int]]], classes: Sequence[str]) -> bool:
    """Whether each path is ``CLASS/VIDEO``, in words that UCF's lists can hold."""
    return all(
        path.partition("/")[0] == classes[label] and path == " ".join(path.split()) and not path.startswith("#")
        for rows in kept.values()
        for path, label in rows
    )


def _ucf(kept: Mapping[str, list[tuple[str, int]]], classes: Sequence[str]) -> dict[str, str]:
    return {
        "classInd.txt": "".join(f"{number} {name}\n" for number, name in enumerate(classes, 1)),
        "trainlist01.txt": "".join(f"{path} {label + 1}\n" for path, label in kept["train"]),
        "testlist01.txt": "".join(f"{path}\n" for path, _ in kept["test"]),
    }


def _csv(kept: Mapping[str, list[tuple[str, int]]], classes: Sequence[str]) -> dict[str, str]:
    files = {}
    for split, rows in kept.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "label"))
        writer.writerows((path, classes[label]) for path, label in rows)
        files[f"{split}.csv"] = text.getvalue()
    return files

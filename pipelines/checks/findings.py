"""What follows from a Check, in words: what makes training or its figures wrong, what makes them worse, and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.checks.check import Check, Copies
from pipelines.containers.notes import CONCEALED_ERRORS, DAMAGED, DAMAGED_PACKETS, HDR, PICTURE, ROTATED

FEW_VIDEOS = 10  # a class with fewer is named: of a fifth that is held out, each video is half of its accuracy or more
_UNEVEN_CLASSES = 3.0  # from so many times the videos of the smallest class on, the largest one is called uneven
_UNEVEN_RATES = 1.5  # from so many times the lowest frame rate on, the rates are called uneven
_LONG = 10.0  # a video is called long from so many times the median length on

Level = Literal["problem", "warning", "note"]
_LEVELS: tuple[Level, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set, in one line, and the names of the videos, files or classes concerned.

    A `problem` makes training or its figures wrong, a `warning` makes them worse, a `note` is good to know.
    """

    level: Level
    text: str
    names: tuple[str, ...] = ()


def findings_of(check: Check) -> tuple[Finding, ...]:
    """What follows from `check`: problems first, then warnings, then notes."""
    found = (*_of_files(check), *_of_copies(check), *_of_classes(check), *_of_pictures(check))
    return tuple(sorted(found, key=lambda finding: _LEVELS.index(finding.level)))


def _of_files(check: Check) -> Iterator[Finding]:
    """What is wrong with files."""
    if check.unreadable:
        names = tuple(_named(item.name, item.reason, item.detail) for item in check.unreadable)
        yield Finding("problem", f"{_count(names, 'video')} can't be read now", names)
    if check.corrupt:
        names = tuple(f"{name} ({count} of {check.frames[name]} frames)" for name, count in check.corrupt.items())
        yield Finding("warning", f"{_count(names, 'video')} with damaged frames", names)
    if check.quarantined:
        names = tuple(f"{name}: {reason}" for name, reason in check.quarantined.items())
        text = f"{_count(names, 'video')} in quarantine: no clip is read of them until --clear-quarantine"
        yield Finding("warning", text, names)
    if check.left_out:
        names = tuple(_named(item.name, item.reason, item.detail) for item in check.left_out)
        yield Finding("warning", f"{_count(names, 'file')} left out of the index", names)
    if check.unindexed:
        text = f"{_count(check.unindexed, 'video')} not in the index yet: index the folder again"
        yield Finding("warning", text, check.unindexed)
    if check.missing:
        yield Finding("warning", f"{_count(check.missing, 'listed video')} not there", check.missing)
    if check.ignored:
        suffixes = tuple(f"{suffix} ({count})" for suffix, count in check.ignored.items())
        total = sum(check.ignored.values())
        yield Finding("note", f"{total} file{'s' * (total > 1)} ignored, not called like a video", suffixes)


def _of_copies(check: Check) -> Iterator[Finding]:
    """Copies and groups that make the figures of an evaluation too good, or that contradict one another."""
    across = [copies for copies in check.copies if len(set(copies.splits)) > 1]
    if across:
        text = f"{_count(across, 'video')} copied into another split: accuracy on it is no measure"
        yield Finding("problem", text, tuple(_copied(copies, copies.splits) for copies in across))
    if torn := [copies for copies in check.copies if len(set(copies.classes)) > 1]:
        text = f"{_count(torn, 'video')} copied into another class: one of the labels is wrong"
        yield Finding("problem", text, tuple(_copied(copies, copies.classes) for copies in torn))
    if check.parted_groups:
        names = tuple(
            f"{parted.group} ({', '.join(f'{split}: {name}' for split, name in parted.videos.items())})"
            for parted in check.parted_groups
        )
        yield Finding("problem", f"{_count(names, 'group')} with videos in several splits", names)
    if within := [copies for copies in check.copies if len(set(copies.splits)) == len(set(copies.classes)) == 1]:
        names = tuple(" = ".join(copies.paths) for copies in within)
        yield Finding("warning", f"{_count(within, 'video')} copied within a split: each copy counts again", names)


def _of_classes(check: Check) -> Iterator[Finding]:
    """Classes that can't be learned or evaluated, or only badly."""
    there = [item for item in check.classes if item.total]
    if len(there) == 1:
        yield Finding("problem", "only one class: whatever the model says is right", (there[0].name,))
    for split in ("train", "test"):
        lacking = tuple(item.name for item in there if not item.videos.get(split))
        if lacking and split in check.splits:
            level: Level = "problem" if split == "train" else "warning"
            yield Finding(level, f"{_count(lacking, 'class', 'classes')} without a {split} video", lacking)
    if not check.splits.get("test"):
        yield Finding("warning", "no test split: there is nothing to evaluate on")
    if few := tuple(f"{item.name} ({item.total})" for item in there if item.total < FEW_VIDEOS):
        yield Finding("warning", f"{_count(few, 'class', 'classes')} with fewer than {FEW_VIDEOS} videos", few)
    if len(there) > 1:
        large, small = max(there, key=lambda item: item.total), min(there, key=lambda item: item.total)
        if large.total >= _UNEVEN_CLASSES * small.total:
            text = (
                f"uneven classes: {large.name} has {large.total} videos, {small.name} has {small.total}; "
                "data.balance=sampling or data.balance=loss evens them out in training"
            )
            yield Finding("warning", text)


def _of_pictures(check: Check) -> Iterator[Finding]:
    """What is odd about the pictures: their number, rate, size and colours."""
    if names := check.notes.get(PICTURE, ()):
        yield Finding("warning", f"{_count(names, 'file')} with one picture under the name of a video", names)
    for note in (DAMAGED, DAMAGED_PACKETS, CONCEALED_ERRORS):
        if names := tuple(name for name in check.notes.get(note, ()) if name not in check.corrupt):
            yield Finding("warning", f"{_count(names, 'video')} with {note}", names)
    if names := check.notes.get(HDR, ()):
        yield Finding("warning", f"{_count(names, 'video')} in HDR, whose colours are not tone-mapped: pale", names)
    if names := check.notes.get(ROTATED, ()):
        yield Finding("note", f"{_count(names, 'video')} turned upright, as the metadata asks", names)
    rates, lengths = check.rates, check.lengths
    if rates is not None and rates.low > 0 and rates.high >= _UNEVEN_RATES * rates.low:
        text = (
            f"frame rates from {round(rates.low, 2):g} to {round(rates.high, 2):g} a second: clips count frames, so "
            "motion looks faster at a low rate"
        )
        yield Finding("warning", text, (rates.lowest, rates.highest))
    if lengths is not None and lengths.high >= _LONG * max(lengths.median, 1e-9):
        text = f"lengths up to {lengths.high:.1f} s, the median is {lengths.median:.1f} s"
        yield Finding("note", text, (lengths.highest,))


def _count(things: Sequence[object], one: str, many: str = "") -> str:
    """How many `things` there are: "1 video", "2 videos"."""
    return f"{len(things)} {one if len(things) == 1 else many or one + 's'}"


def _named(name: str, reason: str, detail: str) -> str:
    return f"{name}: {reason}" + (f" ({detail})" if detail else "")


def _copied(copies: Copies, places: Sequence[str]) -> str:
    return " = ".join(f"{path} ({place})" for path, place in zip(copies.paths, places, strict=True))

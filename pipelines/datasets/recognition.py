"""Finds the videos, classes and splits of a data set in a folder, without opening a video."""

from __future__ import annotations

import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.datasets.entries import Dataset, Entry, LeftOut
from pipelines.datasets.folder_walk import FolderWalk
from pipelines.datasets.groups import check_parted, evident_groups, group_warnings, matched_groups
from pipelines.datasets.held_out import hold_out
from pipelines.datasets.listed_clips import find_clips
from pipelines.datasets.listed_files import find_files
from pipelines.datasets.lists.annotations import find_annotations, read_annotations
from pipelines.datasets.lists.forms import read_lists
from pipelines.datasets.lists.kinetics import find_kinetics, read_kinetics
from pipelines.datasets.lists.listed_videos import ClipLists, ListedVideo, Lists
from pipelines.datasets.split_names import SPLITS, final_split, split_named
from pipelines.datasets.text_files import escaped, first_ten
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, ucf_group
from pipelines.errors import DataError, ListError, UsageError

_LAYOUTS = (
    "expected ROOT/<class>/<video>, or ROOT/train/<class>/<video> with ROOT/test/<class>/<video>, "
    "or lists that say which video is of which class"
)


def recognise_dataset(
    root: Path,
    *,
    lists: Path | None = None,
    split: int | None = None,
    val_fraction: float = 0.2,
    follow_links: bool = False,
    group: str | None = None,
) -> Dataset:
    """The data set in the folder `root`, as `lists` describe it, or else as the names of its folders do.

    `lists` is a folder of UCF-101 or HMDB-51 lists, from which `split` chooses a numbered split; the CSV files of
    Kinetics; the JSON of ActivityNet, or one that the code of Hara et al. 2018 made; a CSV, a text file of
    ``path label`` or a JSON file of Something-Something; or a folder of such files, one for each split. Missing videos
    of Kinetics and ActivityNet are listed in the result; with other lists they are an error.

    If neither lists nor folders name splits, the share `val_fraction` of each class becomes "test". These are the same
    videos on every machine, and groups are kept together. `group` says which videos are of one group: a column of CSV
    lists, or a regular expression for the part of the path that they share; without it, UCF groups are known by their
    names. Links that lead out of `root` are followed only with
    `follow_links`. Raises UsageError for bad arguments, ListError for bad lists, DataError if `root` is no data set.
    """
    if not 0.0 <= val_fraction < 1.0:
        raise UsageError(f"val_fraction {val_fraction}: expected a share of each class, 0 <= val_fraction < 1")
    if lists is None and split is not None:
        raise UsageError(
            f"split {split} without lists: only lists have numbered splits; give lists too, or leave split out"
        )
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except (OSError, ValueError) as problem:
        reason = (problem.strerror if isinstance(problem, OSError) else None) or problem
        raise DataError(f"{escaped(root)}: {reason}; expected a folder of videos, check the path") from problem
    if not is_folder:
        raise DataError(f"{escaped(root)}: is not a folder; expected the folder that holds the videos")
    if group == "":
        raise UsageError("group is empty; expected a regular expression or the name of a column of the lists")
    listed = None if lists is None else _read(lists, split, root, group or "")
    found = FolderWalk(root, follow_links)
    found.run()
    if not found.videos:
        raise DataError(_nothing(found))
    if isinstance(listed, ClipLists):
        return replace(_from_clips(listed, found, group), lists=str(lists))
    if listed is not None:
        data = _from_lists(listed, found, val_fraction, group)
        return replace(data, lists=str(lists), lists_split=listed.split)
    return _from_folders(found, val_fraction, group)


def _read(lists: Path, split: int | None, root: Path, group: str) -> Lists | ClipLists:
    """The content of `lists`, of any form. Raises UsageError if `split` is given with lists that name their splits."""
    kinetics = find_kinetics(lists)
    annotations = None if kinetics else find_annotations(lists)
    if split is not None and (kinetics or annotations):
        what = "the CSV files of Kinetics name" if kinetics else "a JSON with a database names"
        their = "their" if kinetics else "its"
        raise UsageError(f"split {split} with {escaped(str(lists))}: {what} {their} splits; leave it out")
    if annotations:
        return read_annotations(*annotations)
    return read_kinetics(kinetics) if kinetics else read_lists(lists, split=split, root=root, group=group)


def _from_folders(found: FolderWalk, val_fraction: float, group: str | None) -> Dataset:
    """The data set as the names of its folders describe it, with or without train and test folders."""
    videos = sorted(found.videos)
    tops = {path.partition("/")[0] for path in videos if "/" in path}
    sides = {top: split_named(top) for top in tops if split_named(top)}
    named = set(sides.values())
    # A folder "train" is a class if it is beside the folders of other classes and there is no folder of another split.
    has_splits = bool(sides) and (len(sides) == len(tops) or ("train" in named and len(named) > 1))
    depth = 1 if has_splits else 0
    labelled: dict[str, tuple[str, str]] = {}
    for path in videos:
        *folders, _ = path.split("/")
        if has_splits and folders and folders[0] not in sides:
            found.left_out[path] = "not in the folder of a split"
        elif len(folders) <= depth:
            found.left_out[path] = "not in a class folder"
        else:
            labelled[path] = (folders[depth], sides[folders[0]] if has_splits else "")
    if not labelled:
        raise DataError(
            f"{escaped(found.root)}: {len(videos)} videos, none in a class folder ({first_ten(videos)}); {_LAYOUTS}"
        )
    classes = tuple(sorted({name for name, _ in labelled.values()}))
    label = {name: i for i, name in enumerate(classes)}
    present = {side for _, side in labelled.values()}
    entries = [Entry(path, label[name], final_split(side, present)) for path, (name, side) in labelled.items()]
    warnings = ["no folder test or val beside train: there is nothing to evaluate on"] if present == {"train"} else []
    if len(classes) == 1:
        warnings.append(
            f"only one class, {escaped(classes[0])}: is {escaped(found.root)} the folder that holds the class folders?"
        )
    return _dataset("folders", classes, entries, found, warnings, val_fraction, group)


def _from_lists(listed: Lists, found: FolderWalk, val_fraction: float, group: str | None) -> Dataset:
    """The data set of the lists. Raises DataError, with some of the paths, if listed videos are missing."""
    rows, moved = find_files(listed.rows, found) if listed.made_elsewhere else (listed.rows, [])
    rows, doubles = _each_once(rows, listed.classes)
    warnings = [*listed.warnings, *moved, *doubles]
    entries, missing, unusable = [], [], []
    for row in rows:
        if row.path in found.videos:
            entries.append(Entry(row.path, row.label, row.split, group=row.group))
        elif row.path in found.folders or row.path in found.left_out:
            found.left_out.setdefault(row.path, "a folder, not a video")
            unusable.append(row.path)
        else:
            missing.append(row.path)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(rows)} listed videos are missing in {escaped(found.root)}: "
            f"{first_ten(sorted(missing))}; {'; '.join([*moved, _advice(sorted(missing), found)])}"
        )
    if not entries:
        raise DataError(f"none of {len(unusable)} listed videos can be used: {_some_left_out(found)}")
    if unusable:
        warnings.append(f"{len(unusable)} listed videos can't be used and are left out: {first_ten(sorted(unusable))}")
    unlisted = found.videos - listed.unused - {entry.path for entry in entries}
    if unlisted:
        warnings.append(f"{len(unlisted)} videos in ROOT are in no list")
    return _dataset(listed.kind, listed.classes, entries, found, warnings, val_fraction, group)


def _from_clips(listed: ClipLists, found: FolderWalk, group: str | None) -> Dataset:
    """The data set of lists of parts, with the videos that are on disk. Raises DataError if there are none."""
    clips = find_clips(listed, found.videos)
    if not clips.entries:
        names = list(dict.fromkeys(item.name.partition("#t=")[0] for item in clips.missing))
        raise DataError(
            f"none of the {len(names)} videos of {listed.files} is in {escaped(found.root)}: looked for names such as "
            f"{first_ten(names[:3])}; give the folder that they lie in as ROOT"
        )
    warnings = [*listed.warnings, *clips.warnings]
    if unlisted := len(found.videos - {entry.path for entry in clips.entries}):
        warnings.append(f"{unlisted} videos in ROOT are in no list")
    data = _dataset(listed.kind, listed.classes, clips.entries, found, warnings, 0.0, group)
    return replace(data, missing=clips.missing)


def _each_once(rows: Sequence[ListedVideo], classes: Sequence[str]) -> tuple[list[ListedVideo], list[str]]:
    """(the rows without duplicates, warnings about these).

    Raises ListError if a video has two labels, DataError if it is in two splits.
    """
    first: dict[str, ListedVideo] = {}
    leaks: dict[str, set[str]] = {}
    kept = []
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier is row:
            kept.append(row)
        elif earlier.label != row.label:
            raise ListError(
                f"{row.where}: {escaped(row.path)} is {classes[row.label]!r} here and {classes[earlier.label]!r} at "
                f"{earlier.where}; expected one label a video: remove one line"
            )
        elif earlier.split != row.split:
            leaks.setdefault(row.path, {earlier.split}).add(row.split)
    if leaks:
        raise DataError(
            f"leak: {len(leaks)} listed videos are in {_both(set().union(*leaks.values()))}: {first_ten(list(leaks))}; "
            "keep each in one split"
        )
    _check_groups(kept, classes)
    doubles = len(rows) - len(kept)
    return kept, [f"{doubles} duplicate lines of the lists are ignored"] if doubles else []


def _check_groups(rows: Sequence[ListedVideo], classes: Sequence[str]) -> None:
    """Raise DataError if a UCF group, which is clips cut from one video, is in more than one split."""
    sides: dict[tuple[int, tuple[str, str]], dict[str, str]] = defaultdict(dict)
    for row in rows:
        if group := ucf_group(row.path):
            sides[row.label, group].setdefault(row.split, row.path)
    leaks = [
        f"group {group} of {classes[label]} in {_both(files)} "
        f"({' and '.join(escaped(files[side]) for side in _ordered(files))})"
        for (label, (_, group)), files in sorted(sides.items())
        if len(files) > 1
    ]
    if leaks:
        raise DataError(
            f"leak: {len(leaks)} UCF groups are in more than one split: {first_ten(leaks)}; "
            "clips of one group show the same scene: keep a group in one split"
        )


def _both(splits: Collection[str]) -> str:
    """The names of the splits for a message, train first."""
    return " and ".join(_ordered(splits))


def _ordered(splits: Collection[str]) -> list[str]:
    return sorted(splits, key=SPLITS.index)


def _dataset(
    kind: str,
    classes: tuple[str, ...],
    entries: Sequence[Entry],
    found: FolderWalk,
    warnings: list[str],
    fraction: float,
    group: str | None,
) -> Dataset:
    """The data set, with warnings about its classes. If no entry has a split, a share of them becomes "test"."""
    if group is None:
        entries = evident_groups(entries, classes)
    else:
        if not any(entry.group for entry in entries):  # no list has a column of that name
            entries = matched_groups(entries, group)
        check_parted(entries)
        warnings += group_warnings(entries)
    is_held_out = not any(entry.split for entry in entries)
    if is_held_out:
        entries = hold_out(entries, fraction)
    sizes = Counter(entry.label for entry in entries)
    of_split = {split: {entry.label for entry in entries if entry.split == split} for split in SPLITS}
    trained, tested = of_split["train"], of_split["test"]
    for text, names in (
        ("classes of the lists without a video", [c for i, c in enumerate(classes) if not sizes[i]]),
        ("classes with only 1 video", [c for i, c in enumerate(classes) if sizes[i] == 1]),
        ("classes without a train video", [c for i, c in enumerate(classes) if sizes[i] and i not in trained]),
        (
            "classes of a single group, of which none is held out",
            [c for i, c in enumerate(classes) if sizes[i] > 1 and i not in tested and is_held_out and fraction],
        ),
    ):
        if names:
            warnings.append(f"{text} ({len(names)}): {first_ten(names)}")
    if is_held_out and fraction and not tested:
        warnings.append("no video could be held out for testing: there is nothing to evaluate on")
    left_out = tuple(LeftOut(path, reason) for path, reason in sorted(found.left_out.items()))
    ordered = tuple(sorted(entries, key=lambda entry: (entry.path, entry.span or (-1.0, -1.0))))
    ignored = dict(sorted(found.others.items(), key=lambda item: (-item[1], item[0])))
    rule = _rule(fraction, any(entry.group for entry in entries), bool(tested)) if is_held_out else ""
    return Dataset(kind, classes, ordered, left_out, tuple(warnings), rule=rule, ignored=ignored)


def _rule(fraction: float, has_groups: bool, is_any: bool) -> str:
    """By which rule `hold_out` chose the videos, in words; `is_any`: whether it chose any."""
    if not fraction:
        return "none, as --val-fraction 0 says"
    if not is_any:
        return f"none: each class has a single {'group' if has_groups else 'video'}, which is trained on"
    whole = ", whole groups" if has_groups else ""
    return f"{fraction:.0%} of each class{whole}, always the same, by a hash of names"


def _nothing(found: FolderWalk) -> str:
    others = ", ".join(sorted(found.others)[:5]) or "no other file"
    left_out = f"; left out: {_some_left_out(found)}" if found.left_out else ""
    return f"{escaped(found.root)}: no video file; looked for {EXTENSIONS_SHOWN}, found {others}{left_out}; {_LAYOUTS}"


def _some_left_out(found: FolderWalk) -> str:
    return first_ten([f"{escaped(path)}: {reason}" for path, reason in sorted(found.left_out.items())])


def _advice(missing: Sequence[str], found: FolderWalk) -> str:
    """What to do about missing files, by their most likely cause."""
    for path in missing:
        parts = path.split("/")
        if any(part.startswith(".") for part in parts):
            return f"{escaped(path)} is hidden (leading dot) and skipped: rename it"
        for depth in range(1, len(parts)):
            if reason := found.left_out.get("/".join(parts[:depth])):
                return f"{escaped('/'.join(parts[:depth]))} is left out: {reason}"
    ends = {path.rpartition(".")[0]: path for path in found.videos}
    for path in missing:
        if other := ends.get(path.rpartition(".")[0]):
            return f"{escaped(other)} is there, with another extension: write the extensions of the files into the list"
    deeper = next((path for path in sorted(found.videos) if path.endswith("/" + missing[0])), None)
    if deeper:
        root = found.root / deeper[: -len(missing[0]) - 1]
        return f"they may be one folder further down: give {escaped(root)} as ROOT"
    return "check that ROOT is the folder that holds the class folders and that it is complete"

"""Finds the videos, classes and splits of a data set in a folder, without opening a video."""

from __future__ import annotations

import hashlib
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.datasets.entries import Dataset, Entry, LeftOut
from pipelines.datasets.folder_walk import FolderWalk
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
) -> Dataset:
    """The data set in the folder `root`, as `lists` describe it, or else as the names of its folders do.

    `lists` is a folder of UCF-101 or HMDB-51 lists, from which `split` chooses a numbered split; the CSV files of
    Kinetics; the JSON of ActivityNet, or one that the code of Hara et al. 2018 made; a CSV, a text file of
    ``path label`` or a JSON file of Something-Something; or a folder of such files, one for each split. Missing videos
    of Kinetics and ActivityNet are listed in the result; with other lists they are an error.

    If neither lists nor folders name splits, the share `val_fraction` of each class becomes "test". These are the same
    videos on every machine, and UCF groups are kept together. Links that lead out of `root` are followed only with
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
    listed = None if lists is None else _read(lists, split, root)
    found = FolderWalk(root, follow_links)
    found.run()
    if not found.videos:
        raise DataError(_nothing(found))
    if isinstance(listed, ClipLists):
        return replace(_from_clips(listed, found), lists=str(lists))
    if listed is not None:
        data = _from_lists(listed, found, val_fraction)
        return replace(data, lists=str(lists), lists_split=listed.split)
    return _from_folders(found, val_fraction)


def _read(lists: Path, split: int | None, root: Path) -> Lists | ClipLists:
    """The content of `lists`, of any form. Raises UsageError if `split` is given with lists that name their splits."""
    kinetics = find_kinetics(lists)
    annotations = None if kinetics else find_annotations(lists)
    if split is not None and (kinetics or annotations):
        what = "the CSV files of Kinetics name" if kinetics else "a JSON with a database names"
        their = "their" if kinetics else "its"
        raise UsageError(f"split {split} with {escaped(str(lists))}: {what} {their} splits; leave it out")
    if annotations:
        return read_annotations(*annotations)
    return read_kinetics(kinetics) if kinetics else read_lists(lists, split=split, root=root)


def _from_folders(found: FolderWalk, val_fraction: float) -> Dataset:
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
        warnings.append(f"only one class, {escaped(classes[0])}: is ROOT the folder that holds the class folders?")
    return _dataset("folders", classes, entries, found, warnings, val_fraction)


def _from_lists(listed: Lists, found: FolderWalk, val_fraction: float) -> Dataset:
    """The data set of the lists. Raises DataError, with some of the paths, if listed videos are missing."""
    rows, moved = find_files(listed.rows, found) if listed.made_elsewhere else (listed.rows, [])
    rows, doubles = _each_once(rows, listed.classes)
    warnings = [*listed.warnings, *moved, *doubles]
    entries, missing, unusable = [], [], []
    for row in rows:
        if row.path in found.videos:
            entries.append(Entry(row.path, row.label, row.split))
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
    return _dataset(listed.kind, listed.classes, entries, found, warnings, val_fraction)


def _from_clips(listed: ClipLists, found: FolderWalk) -> Dataset:
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
    data = _dataset(listed.kind, listed.classes, clips.entries, found, warnings, 0.0)
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
) -> Dataset:
    """The data set, with warnings about its classes. If no entry has a split, a share of them becomes "test"."""
    if not any(entry.split for entry in entries):
        entries = _hold_out(entries, classes, fraction)
    sizes = Counter(entry.label for entry in entries)
    trained = {entry.label for entry in entries if entry.split == "train"}
    for text, names in (
        ("classes of the lists without a video", [c for i, c in enumerate(classes) if not sizes[i]]),
        ("classes with only 1 video", [c for i, c in enumerate(classes) if sizes[i] == 1]),
        ("classes without a train video", [c for i, c in enumerate(classes) if sizes[i] and i not in trained]),
    ):
        if names:
            warnings.append(f"{text} ({len(names)}): {first_ten(names)}")
    left_out = tuple(LeftOut(path, reason) for path, reason in sorted(found.left_out.items()))
    ordered = tuple(sorted(entries, key=lambda entry: (entry.path, entry.span or (-1.0, -1.0))))
    return Dataset(kind, classes, ordered, left_out, tuple(warnings))


def _hold_out(entries: Iterable[Entry], classes: Sequence[str], fraction: float) -> list[Entry]:
    """The entries with splits: in each class about `fraction` of the videos becomes "test", the others "train".

    Whole UCF groups become "test", in the order of a hash of their names.
    """
    groups: dict[int, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        group = ucf_group(entry.path)
        groups[entry.label]["/".join((classes[entry.label], *group)) if group else entry.path].append(entry)
    result: list[Entry] = []
    for members in groups.values():
        size = sum(len(clips) for clips in members.values())
        wanted = max(1, round(fraction * size)) if fraction > 0 else 0
        # The hash of a video, and so its rank, stays the same when other videos are added or removed.
        *first, last = sorted(members, key=lambda key: (hashlib.sha256(key.encode()).digest(), key))
        held = 0
        for key in (*first, last):
            # The last group is always for training, since a class without training videos can't be learned.
            split = "test" if held < wanted and key != last else "train"
            held += len(members[key]) if split == "test" else 0
            result += (Entry(entry.path, entry.label, split) for entry in members[key])
    return result


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

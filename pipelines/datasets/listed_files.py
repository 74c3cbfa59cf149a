"""Finds the files that lists name, if the lists were made on another machine or leave out the extensions."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipelines.datasets.folder_walk import FolderWalk
from pipelines.datasets.lists.listed_videos import ListedVideo
from pipelines.datasets.split_names import split_named
from pipelines.datasets.text_files import escaped
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import ListError

_SAMPLE = 64  # paths of a list by which the place of its videos is looked for
_TRIED = 8  # places that are tried with all paths of a list


class Place(NamedTuple):
    """Where the videos of a list lie: `prefix` is taken off its paths, and `folder`, under the root, put before them.

    Both are empty or end in "/".
    """

    prefix: str
    folder: str

    def path(self, listed: str) -> str | None:
        """The path under the root, or None if the listed path does not begin with the prefix."""
        return self.folder + listed[len(self.prefix) :] if listed.startswith(self.prefix) else None


_HERE = Place("", "")


class _Files:
    """The files under a root, by path, and by path without extension."""

    def __init__(self, found: FolderWalk) -> None:
        self.videos = found.videos
        self.others = found.folders | found.left_out.keys()
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(found.videos):
            self.by_stem[path.rpartition(".")[0]].append(path)
        self._by_name: dict[str, list[str]] = {}

    def at(self, path: str | None) -> str | None:
        """The video at `path`, which may lack its extension, or else what else is there; None if nothing is."""
        if path is None or path in self.videos:
            return path
        if not is_video_name(path) and path in self.by_stem:
            return self.by_stem[path][0]
        return path if path in self.others else None

    def named(self, path: str) -> list[str]:
        """The videos, in any folder, that have the file name of `path`."""
        if not self._by_name:
            by_name: dict[str, list[str]] = defaultdict(list)
            for video in self.videos:
                name = posixpath.basename(video)
                by_name[name].append(video)
                by_name[name.rpartition(".")[0]].append(video)
            self._by_name = by_name
        return self._by_name.get(posixpath.basename(path), [])


def find_files(rows: Sequence[ListedVideo], found: FolderWalk) -> tuple[list[ListedVideo], list[str]]:
    """(the rows with paths relative to the root, warnings about what was done to the paths).

    Paths may be relative to the root, or absolute and inside it. If none of a list is there, its videos are looked for
    by the ends of their paths: a beginning that belongs to another machine is taken off all of them, or the folder that
    they lie in is put before all. Names without an extension are those of the videos that have one. A path that is not
    found keeps its name. Raises ListError for paths outside the root, and where two places or two files fit.
    """
    files = _Files(found)
    roots = {posixpath.normpath(found.root.absolute()), str(found.real_root)}
    listed = [_renamed(row, _normal(row.path, roots, files)) for row in rows]
    groups: dict[tuple[str, str], list[ListedVideo]] = defaultdict(list)
    for row in listed:
        groups[row.where.rpartition(":")[0], row.split].append(row)
    places = {group: _place(members, files) for group, members in groups.items()}
    # The same name by chance is no evidence: a place counts if two videos are found there.
    evidence: Counter[Place] = Counter()
    for place, members in zip(places.values(), groups.values(), strict=True):
        evidence[place] += sum(files.at(place.path(row.path)) is not None for row in members)
    warnings = []
    for (file, split), place in places.items():
        if place != _HERE and evidence[place] < 2:
            places[file, split] = _HERE
        elif place != _HERE:
            warnings.append(_moved(file, split if len(places) > len({file for file, _ in places}) else "", place))
    mixed = {row.where.rpartition(":")[0] for row in listed if is_video_name(row.path)}
    result = []
    for row in listed:
        file = row.where.rpartition(":")[0]
        path = places[file, row.split].path(row.path) or row.path
        result.append(_renamed(row, _checked(path, row, files, needs_extension=file in mixed)))
    return result, warnings


def _normal(path: str, roots: Iterable[str], files: _Files) -> str:
    """The listed path, normalised, and relative to the root if it is inside. Backslashes are those of Windows."""
    normal = posixpath.normpath(path)
    if "\\" in path and normal not in files.videos:
        normal = posixpath.normpath(path.replace("\\", "/"))
    for root in roots:
        normal = normal.removeprefix(root.rstrip("/") + "/")
    return normal


def _renamed(row: ListedVideo, path: str) -> ListedVideo:
    return row if row.path == path else row._replace(path=path)


def _place(rows: Sequence[ListedVideo], files: _Files) -> Place:
    """The place where most of the videos of one list are. Raises ListError if two places fit equally well."""
    if any(files.at(row.path) for row in rows):
        return _HERE
    votes: Counter[Place] = Counter()
    for row in rows[:: max(1, len(rows) // _SAMPLE)]:
        votes.update(_places(row.path, files.named(row.path)))
    counts = {
        place: sum(files.at(place.path(row.path)) is not None for row in rows) for place, _ in votes.most_common(_TRIED)
    }
    most = max(counts.values(), default=0)
    best = [place for place in counts if counts[place] == most]
    if len(best) > 1:
        best = [place for place in best if rows[0].split in _splits_in(place.folder)] or best
    if not best or (len(best) > 1 and 2 * most <= len(rows)):
        return _HERE
    if len(best) > 1:
        where = rows[0].where.rpartition(":")[0]
        shown = " and ".join(escaped(place.folder or "ROOT") for place in sorted(best)[:2])
        raise ListError(
            f"{where}: its videos may be those in {shown}; expected one place: give the folder that they lie in as ROOT"
        )
    return best[0]


def _places(listed: str, videos: Sequence[str]) -> set[Place]:
    """The places by which a listed path would be one of `videos`; those with the longest common end of the paths."""
    parts = listed.split("/")
    longest, found = 0, set[Place]()
    for video in videos:
        there = video.split("/")
        common = 1
        while common < min(len(parts), len(there)) and parts[-1 - common] == there[-1 - common]:
            common += 1
        if common > longest:
            longest, found = common, set()
        if common == longest:
            found.add(Place(*("".join(f"{part}/" for part in path[:-common]) for path in (parts, there))))
    return found


def _splits_in(folder: str) -> set[str]:
    """The splits that the names of folders tell, such as {"val", "test"} for ``videos_val/``.

    The split of a list of validation is "test" where there is no other.
    """
    splits = {split_named(word) for word in re.split("[^a-z]+", folder.lower())}
    return splits | {"test"} if "val" in splits else splits


def _moved(file: str, split: str, place: Place) -> str:
    """The warning that the paths of a list, or of one split in it, were changed."""
    listed = f"its paths of {split}" if split else "its paths"
    if not place.folder:
        done = f"{escaped(place.prefix)} was taken off {listed}"
    elif not place.prefix:
        done = f"{escaped(place.folder)} was put before {listed}"
    else:
        done = f"{escaped(place.prefix)} at the beginning of {listed} became {escaped(place.folder)}"
    return f"{file}: {done}, so that they lead to the videos in ROOT"


def _checked(path: str, row: ListedVideo, files: _Files, *, needs_extension: bool) -> str:
    """The path of the file. Raises ListError if the path is outside the root, or no or several videos can be meant."""
    there = files.at(path)
    several = files.by_stem.get(path, []) if there and there != path else []
    if len(several) > 1:
        raise ListError(
            f"{row.where}: {escaped(row.path)} may be {' or '.join(map(escaped, several[:2]))}; add the extension"
        )
    if there:
        return there
    if path.startswith(("/", "../")):
        raise ListError(
            f"{row.where}: {escaped(row.path)} is outside the root, and no end of the listed paths leads into it; "
            "expected paths relative to ROOT: give the folder that holds the listed videos as ROOT"
        )
    if needs_extension and not is_video_name(path):
        raise ListError(
            f"{row.where}: {row.path!r} is no video file name, and no video has this name and an extension; "
            f"expected one of {EXTENSIONS_SHOWN}"
        )
    return path

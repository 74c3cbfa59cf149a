"""Reads the official CSV files of Kinetics and finds the videos that they name. No video is opened.

A row is ``label,youtube_id,time_start,time_end,split``, as in Kinetics-400, -600, -700 and -700-2020 (a sixth column,
is_cc, is not read). Many of the videos can no longer be downloaded, so a missing video is no error: it is listed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets.entries import Entry, Missing
from pipelines.datasets.lists.csv_lists import read_csv_rows
from pipelines.datasets.split_names import SPLIT_WORDS, split_named
from pipelines.datasets.text_files import escaped, first_ten, read_text
from pipelines.errors import DataError, ListError

_COLUMNS = ("youtube_id", "time_start", "time_end")
_EXPECTED = "expected the columns label,youtube_id,time_start,time_end,split"
_FILE = re.compile(rf"(?:kinetics[-_]?[0-9_-]*[-_])?({'|'.join(SPLIT_WORDS)})\.csv", re.IGNORECASE)


class KineticsClip(NamedTuple):
    """One row of a list: 0-based label, id of the video at YouTube, begin and end in seconds, split, file and line."""

    label: int
    youtube_id: str
    begin: float
    end: float
    split: str
    where: str

    @property
    def stem(self) -> str:
        """The name, without a suffix, of a file that holds this clip alone; its times have six digits."""
        return f"{self.youtube_id}_{int(self.begin):06d}_{int(self.end):06d}"


@dataclass(frozen=True)
class KineticsLists:
    """The content of the lists.

    `classes` are all classes in the lists, sorted, so that labels do not depend on which videos are there.
    """

    files: str  # the names of the files, for messages
    classes: tuple[str, ...]
    clips: tuple[KineticsClip, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class FoundClips:
    """The clips that are there, those that are missing, both in the order of the lists, and warnings."""

    entries: list[Entry]
    missing: tuple[Missing, ...]
    warnings: list[str]


def find_kinetics(lists: Path) -> list[Path]:
    """The CSV files of Kinetics in `lists`, which is a file or a folder with train.csv, val.csv and test.csv."""
    try:
        files = sorted(p for p in lists.iterdir() if _FILE.fullmatch(p.name)) if lists.is_dir() else [lists]
    except (OSError, ValueError):
        return []  # read_lists, which reads lists of any other form, reports the error
    return [file for file in files if _is_kinetics(file)]


def read_kinetics(files: Sequence[Path]) -> KineticsLists:
    """The content of `files`. A file without labels, as some test.csv, is left out with a warning.

    Raises ListError for a line that can't be used, DataError for a clip that is in two splits.
    """
    rows: list[tuple[str, KineticsClip]] = []
    warnings: list[str] = []
    for file in files:
        found = _read(file)
        if found is None:
            warnings.append(f"{escaped(str(file))} has no labels and is left out")
        else:
            rows += found
    if not rows:
        raise ListError(f"{first_ten([str(file) for file in files])}: no labelled rows; {_EXPECTED}")
    classes = tuple(sorted({name for name, _ in rows}))
    number = {name: label for label, name in enumerate(classes)}
    clips, odd = _each_once([clip._replace(label=number[name]) for name, clip in rows])
    return KineticsLists(first_ten([str(file) for file in files]), classes, tuple(clips), (*warnings, *odd))


def find_clips(listed: KineticsLists, videos: Collection[str]) -> FoundClips:
    """The file of each clip among `videos`, which are paths relative to the root.

    Files are found by their names, in any folder: ``ID_000010_000020.mp4`` holds the clip alone, ``ID.mp4`` is the
    whole video, of which only the frames of the clip are used. A file of the clip alone is preferred. Of several files
    the one in the folder of its class is taken.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in sorted(videos):
        by_stem[path.rpartition("/")[2].rpartition(".")[0]].append(path)
    entries: list[Entry] = []
    missing: list[Missing] = []
    several: list[str] = []
    taken: set[tuple[str, float, float]] = set()
    for clip in listed.clips:
        name = listed.classes[clip.label]
        cut, uncut = by_stem.get(clip.stem, []), by_stem.get(clip.youtube_id, [])
        if not cut and not uncut:
            missing.append(Missing(f"{name}/{clip.stem}", clip.split))
            continue
        path, alike = _best(cut or uncut, name, clip.split)
        several += [path] * (alike > 1)
        span = None if cut else (clip.begin, clip.end)
        if (path, *(span or (0.0, 0.0))) not in taken:
            taken.add((path, *(span or (0.0, 0.0))))
            entries.append(Entry(path, clip.label, clip.split, span))
    warnings = [f"{len(several)} clips have several files, one is taken: {first_ten(several)}"] if several else []
    return FoundClips(entries, tuple(missing), warnings)


def _is_kinetics(file: Path) -> bool:
    """Whether `file` is a CSV whose first line has the columns of Kinetics."""
    if file.suffix.lower() != ".csv" or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            head = stream.readline(4096).decode("utf-8-sig", errors="replace")
    except OSError:
        return False
    columns = {cell.strip().strip('"').lower() for cell in head.split(",")}
    return columns >= set(_COLUMNS)


def _read(file: Path) -> list[tuple[str, KineticsClip]] | None:
    """(class name, clip without its label) of each row, or None for a file without labels."""
    rows = read_csv_rows(read_text(file), escaped(str(file)), ",")
    _, header = next(rows)
    place = {cell.strip().lower(): i for i, cell in enumerate(header)}
    if "label" not in place:
        return None
    named = _FILE.fullmatch(file.name)
    default = split_named(named[1]) if named else ""
    return [_clip(row, place, default, f"{escaped(str(file))}:{number}") for number, row in rows]


def _clip(row: list[str], place: dict[str, int], default: str, where: str) -> tuple[str, KineticsClip]:
    def cell(column: str) -> str:
        at = place.get(column, len(row))
        return row[at].strip() if at < len(row) else ""

    name, video = cell("label"), cell("youtube_id")
    if not name or not video or "/" in video:
        raise ListError(f"{where}: label {name!r}, youtube_id {video!r}; {_EXPECTED}")
    try:
        begin, end = float(cell("time_start")), float(cell("time_end"))
    except ValueError:
        begin, end = 0.0, 0.0
    if not 0 <= begin < end < 1e6:
        raise ListError(
            f"{where}: time_start {cell('time_start')!r}, time_end {cell('time_end')!r}; "
            "expected seconds, 0 <= start < end"
        )
    word = cell("split").lower()
    split = split_named(word) if word else default
    if not split:
        raise ListError(f"{where}: split {word!r}; expected one of {', '.join(SPLIT_WORDS)}")
    return name, KineticsClip(-1, video, begin, end, split, where)


def _each_once(rows: Sequence[KineticsClip]) -> tuple[list[KineticsClip], list[str]]:
    """(the clips without duplicates, warnings). Raises DataError for a clip that is in two splits."""
    first: dict[tuple[str, float, float], KineticsClip] = {}
    splits: dict[str, str] = {}
    doubles: list[str] = []
    shared: set[str] = set()
    for clip in rows:
        earlier = first.setdefault((clip.youtube_id, clip.begin, clip.end), clip)
        if earlier.split != clip.split:
            raise DataError(
                f"leak: {clip.stem} is in {clip.split} at {clip.where} and in {earlier.split} at {earlier.where}; "
                "keep it in one split"
            )
        if earlier is not clip:
            doubles.append(clip.stem)
        if splits.setdefault(clip.youtube_id, clip.split) != clip.split:
            shared.add(clip.youtube_id)
    warnings = [f"{len(doubles)} rows name a clip again and are ignored: {first_ten(doubles)}"] if doubles else []
    if shared:
        warnings.append(f"{len(shared)} videos have clips in two splits: {first_ten(sorted(shared))}")
    return list(first.values()), warnings


def _best(paths: Sequence[str], name: str, split: str) -> tuple[str, int]:
    """(the path that fits a clip of class `name` best, how many paths fit equally well), by the names of folders."""
    if len(paths) == 1:
        return paths[0], 1

    def suits(path: str) -> tuple[bool, bool]:
        folders = [_plain(folder) for folder in path.split("/")[:-1]]
        return _plain(name) in folders, any(split_named(folder) == split for folder in folders)

    best = max(map(suits, paths))
    alike = [path for path in paths if suits(path) == best]
    return alike[0], len(alike)


def _plain(name: str) -> str:
    """The name of a class or folder in lower case, words only, so that ``Riding_a bike`` equals ``riding a bike``."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()

"""Reads the official CSV files of Kinetics.

A row is ``label,youtube_id,time_start,time_end,split``, as in Kinetics-400, -600, -700 and -700-2020 (a sixth column,
is_cc, is not read). Many of the videos can no longer be downloaded, so a missing video is no error: it is listed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipelines.datasets.lists.csv_lists import read_csv_rows
from pipelines.datasets.lists.listed_videos import ClipLists, ListedClip
from pipelines.datasets.split_names import SPLIT_WORDS, split_named
from pipelines.datasets.text_files import escaped, first_ten, read_text
from pipelines.errors import DataError, ListError

_COLUMNS = ("youtube_id", "time_start", "time_end")
_EXPECTED = "expected the columns label,youtube_id,time_start,time_end,split"
_FILE = re.compile(rf"(?:kinetics[-_]?[0-9_-]*[-_])?({'|'.join(SPLIT_WORDS)})\.csv", re.IGNORECASE)


def find_kinetics(lists: Path) -> list[Path]:
    """The CSV files of Kinetics in `lists`, which is a file or a folder with train.csv, val.csv and test.csv."""
    try:
        files = sorted(p for p in lists.iterdir() if _FILE.fullmatch(p.name)) if lists.is_dir() else [lists]
    except (OSError, ValueError):
        return []  # read_lists, which reads lists of any other form, reports the error
    return [file for file in files if _is_kinetics(file)]


def read_kinetics(files: Sequence[Path]) -> ClipLists:
    """The content of `files`. A file without labels, as some test.csv, is left out with a warning.

    Raises ListError for a line that can't be used, DataError for a clip that is in two splits.
    """
    rows: list[tuple[str, ListedClip]] = []
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
    shown = first_ten([str(file) for file in files])
    return ClipLists(kinetics_kind(classes), shown, classes, tuple(clips), (*warnings, *odd))


def kinetics_kind(classes: Sequence[str]) -> str:
    """The kind of a data set with these classes: kinetics, with the number of its classes if it is a usual one."""
    return f"kinetics{len(classes)}" if len(classes) in (400, 600, 700) else "kinetics"


def kinetics_clip(video: str, begin: float, end: float, split: str, where: str) -> ListedClip:
    """A clip without its label. The times in the names of its files have six digits."""
    return ListedClip(-1, f"{video}_{int(begin):06d}_{int(end):06d}", (video,), begin, end, split, where)


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


def _read(file: Path) -> list[tuple[str, ListedClip]] | None:
    """(class name, clip without its label) of each row, or None for a file without labels."""
    rows = read_csv_rows(read_text(file), escaped(str(file)), ",")
    _, header = next(rows)
    place = {cell.strip().lower(): i for i, cell in enumerate(header)}
    if "label" not in place:
        return None
    named = _FILE.fullmatch(file.name)
    default = split_named(named[1]) if named else ""
    return [_clip(row, place, default, f"{escaped(str(file))}:{number}") for number, row in rows]


def _clip(row: list[str], place: dict[str, int], default: str, where: str) -> tuple[str, ListedClip]:
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
    return name, kinetics_clip(video, begin, end, split, where)


def _each_once(rows: Sequence[ListedClip]) -> tuple[list[ListedClip], list[str]]:
    """(the clips without duplicates, warnings). Raises DataError for a clip that is in two splits."""
    first: dict[tuple[tuple[str, ...], float, float], ListedClip] = {}
    splits: dict[str, str] = {}
    doubles: list[str] = []
    shared: set[str] = set()
    for clip in rows:
        earlier = first.setdefault((clip.uncut, clip.begin, clip.end), clip)
        if earlier.split != clip.split:
            raise DataError(
                f"leak: {clip.name} is in {clip.split} at {clip.where} and in {earlier.split} at {earlier.where}; "
                "keep it in one split"
            )
        if earlier is not clip:
            doubles.append(clip.name)
        if splits.setdefault(clip.uncut[0], clip.split) != clip.split:
            shared.add(clip.uncut[0])
    warnings = [f"{len(doubles)} rows name a clip again and are ignored: {first_ten(doubles)}"] if doubles else []
    if shared:
        warnings.append(f"{len(shared)} videos have clips in two splits: {first_ten(sorted(shared))}")
    return list(first.values()), warnings

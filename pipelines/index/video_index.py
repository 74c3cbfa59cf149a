"""VideoIndex: the index of a data set, with the videos, labels, splits and packet tables. It is an SQLite file.

The index is built once, by demuxing every video. A build is one transaction: if it is killed, the old index remains. A
later build probes only files whose size or time of change differs.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import get_ident
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import ACCEPT_WHOLE, MAX_PIXELS, Acceptance
from pipelines.datasets.entries import Dataset, Missing
from pipelines.datasets.recognition import recognise_dataset
from pipelines.datasets.split_names import split_named
from pipelines.errors import DataError, IndexFileError
from pipelines.index.database import COLUMNS, FIELD_COUNT, SCHEMA, VIDEO_FIELDS, OnProgress, shown_key, write_tables
from pipelines.index.probe_pool import OnFile
from pipelines.sampler import VideoColumns
from pipelines.video.orientation import Orientation
from pipelines.video.parameters import StreamParameters
from pipelines.video.record import VideoRecord

SUFFIX = ".r3dindex"
_PARAMETERS, _ORIENTATION = (VIDEO_FIELDS.split(", ").index(name) for name in ("parameters", "orientation"))


@dataclass(frozen=True)
class Quarantined:
    """A file that the index leaves out: its path relative to the root, a short reason, and details."""

    path: str
    reason: str
    detail: str = ""


class VideoIndex:
    """The videos of a data set, read from its index file.

    `len(index)` is the number of videos, and `index[i]` is the VideoRecord of video i; they are sorted by path and
    part. `classes` are the names of the classes by label, `splits` the names of the splits. `kind` is the form of data
    set that was recognised, `lists` the path of its list files ("" if it has none), `lists_split` the number of the
    split that was taken from the lists (None if they have no numbered splits).
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        """Open the index at `path`. `root` is the folder of the data set, if it was moved since it was indexed.

        Raises IndexFileError if there is no index, or it is damaged or of another version.
        """
        self.path = Path(path)
        self._root = root
        self._connection: tuple[tuple[int, int], sqlite3.Connection] | None = None
        if not self.path.is_file():
            raise IndexFileError(f"{self.path}: no such index; make one with: r3d-fast data index ROOT")
        try:
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
            if meta.get("schema") != str(SCHEMA):
                raise IndexFileError(
                    f"{self.path}: index schema {meta.get('schema', 'unknown')}, expected {SCHEMA}; "
                    f"{self._rebuild_hint(meta.get('root'))}"
                )
            blobs = dict(self._db.execute("SELECT name, data FROM columns"))
            self._columns = {name: np.frombuffer(blobs[name], np.int32) for name in COLUMNS}
            self.classes: tuple[str, ...] = tuple(json.loads(meta["classes"]))
            self.splits: tuple[str, ...] = tuple(json.loads(meta["splits"]))
            self.warnings: tuple[str, ...] = tuple(json.loads(meta["warnings"]))
        except IndexFileError:
            raise
        except (sqlite3.DatabaseError, KeyError, ValueError) as error:
            raise IndexFileError(f"{self.path}: not a readable index ({error}); {self._rebuild_hint(None)}") from error
        self.kind, self.digest = meta["kind"], meta["digest"]
        self.lists: str = meta.get("lists", "")
        self.lists_split: int | None = int(meta["lists_split"]) if meta.get("lists_split") else None
        self.root = Path(root if root is not None else meta["root"])

    @classmethod
    def open(cls, path: str | Path, root: str | Path | None = None) -> VideoIndex:
        """The index at `path`; see VideoIndex."""
        return cls(path, root)

    @classmethod
    def build(
        cls,
        root: str | Path,
        *,
        lists: str | Path | None = None,
        split: int | None = None,
        val_fraction: float = 0.2,
        index: str | Path | None = None,
        workers: int | None = None,
        follow_links: bool = False,
        allow_partial: bool = False,
        max_pixels: int = MAX_PIXELS,
        progress: OnProgress | None = None,
        watch: OnFile | None = None,
    ) -> VideoIndex:
        """The index of the data set at `root`, made or brought up to date.

        `lists`, `split`, `val_fraction` and `follow_links` are those of `recognise_dataset`. `index` is the path of the
        index file; by default it is beside the data set, or in the current folder where that is not writable.
        `workers` processes probe the files (default: one for each usable CPU). With `allow_partial` a truncated video
        is used as far as it goes. Videos whose frames have more than `max_pixels` are left out. `progress` is called
        with (files done, all files), `watch` with the path of a file that must be decoded, which can take minutes, and
        the share of it that is done, 0 to 1. Raises DataError if there is nothing to index, ListError for a bad list,
        UsageError if the index can't be written.
        """
        root = Path(root)
        data = recognise_dataset(
            root,
            lists=Path(lists) if lists else None,
            split=split,
            val_fraction=val_fraction,
            follow_links=follow_links,
        )
        path = Path(index) if index is not None else default_path(root)
        accept = Acceptance(allow_partial, max_pixels)
        return write_index(path, root, data, workers=workers, accept=accept, progress=progress, watch=watch)

    def __len__(self) -> int:
        return len(self._columns["rowid"])

    def __getitem__(self, i: int) -> VideoRecord:
        if not 0 <= i < len(self):
            raise IndexError(f"video {i} of {len(self)}")
        row = self._db.execute(
            f"SELECT {VIDEO_FIELDS}, label, split FROM videos WHERE id = ?",
            (int(self._columns["rowid"][i]),),
        ).fetchone()
        if row is None:
            raise IndexFileError(f"{self.path}: video {i} is gone: the index was rebuilt while in use; start again")
        return replace(_record(row), video_id=i, label=row[FIELD_COUNT], split=row[FIELD_COUNT + 1])

    def __reduce__(self) -> tuple[type[VideoIndex], tuple[str, str]]:
        """Pickle the path only: each process opens the file itself."""
        return type(self), (str(self.path), str(self.root))

    def names(self) -> tuple[str, ...]:
        """The name of each video, by number: its path relative to the root; for a part of a file ``PATH#t=10,20``."""
        rows = self._db.execute("SELECT id, path, begin_seconds, end_seconds FROM videos")
        found = {rowid: shown_key(path, None if end < 0 else (begin, end)) for rowid, path, begin, end in rows}
        return tuple(found[rowid] for rowid in self._columns["rowid"].tolist())

    def own_split(self, split: str) -> str:
        """The name in this index of the split that is meant by `split`: "val" for "validation".

        Raises DataError if the index does not have that split.
        """
        for name in (split, split_named(split)):
            if name in self.splits:
                return name
        raise DataError(f"{self.path}: no split {split!r}; it has {', '.join(self.splits) or 'none'}")

    def columns(self, split: str | None = None) -> VideoColumns:
        """What the sampler needs of the videos of `split` (None: of all videos), as arrays.

        Raises DataError if the index does not have that split.
        """
        rows: NDArray[np.int64] = np.arange(len(self))
        if split is not None:
            rows = np.flatnonzero(self._columns["split"] == self.splits.index(self.own_split(split)))
        wide = {name: self._columns[name][rows].astype(np.int64) for name in COLUMNS}
        return VideoColumns(rows, wide["label"], wide["num_frames"], wide["height"], wide["width"])

    @property
    def quarantined(self) -> list[Quarantined]:
        """The files that were left out, and why, sorted by path."""
        rows = self._db.execute("SELECT path, reason, detail FROM quarantine ORDER BY path")
        return [Quarantined(*row) for row in rows]

    @property
    def missing(self) -> list[Missing]:
        """The videos in the lists that were not there when the index was built, in the order of the lists."""
        return [Missing(*row) for row in self._db.execute("SELECT name, split FROM missing ORDER BY rowid")]

    def largest_file(self, split: str | None = None) -> int:
        """The size in bytes of the largest file of `split` (None: of all splits); 0 if there is none."""
        query = "SELECT MAX(size) FROM videos WHERE ?1 IS NULL OR split = ?1"
        return int(self._db.execute(query, (split,)).fetchone()[0] or 0)

    def kinds(
        self, split: str | None = None, *, examples: int = 3, units: Mapping[str, int] | None = None
    ) -> list[tuple[list[VideoRecord], int]]:
        """The kinds of video in `split` (None: in all splits), each as (its first `examples` videos, number of videos).

        Videos are of one kind if they have the same codec, pixel format, matrix and range of colours, and note. `units`
        has a number of px by codec: then videos whose width and height are multiples of it are kinds of their own.
        """
        cases = [f"WHEN '{codec}' THEN width % {unit} OR height % {unit}" for codec, unit in (units or {}).items()]
        is_cut = f"CASE codec {' '.join(cases)} ELSE 0 END" if cases else "0"
        alike = "codec, pix_fmt, colorspace, color_range, note, is_cut"
        query = (
            f"SELECT {VIDEO_FIELDS}, place, count FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {alike} ORDER BY id) "
            f"AS place, COUNT(*) OVER (PARTITION BY {alike}) AS count FROM (SELECT *, "
            "json_extract(parameters, '$.colorspace') AS colorspace, "
            f"json_extract(parameters, '$.color_range') AS color_range, {is_cut} AS is_cut FROM videos "
            "WHERE ?1 IS NULL OR split = ?1)) "
            f"WHERE place <= ?2 ORDER BY {alike}, place"
        )
        found: list[tuple[list[VideoRecord], int]] = []
        for row in self._db.execute(query, (split, examples)):
            if row[FIELD_COUNT] == 1:
                found.append(([], row[FIELD_COUNT + 1]))
            found[-1][0].append(_record(row))
        return found

    def sizes(self) -> list[tuple[str, int, int]]:
        """The (codec, width, height) that occur in the index, each once; sizes in px, of the frames as stored."""
        query = "SELECT DISTINCT codec, orientation, width, height FROM videos"
        found = self._db.execute(query).fetchall()
        return sorted({(codec, *Orientation.of_code(code).size(*size)) for codec, code, *size in found})

    def counts(self, field: str) -> list[tuple[str, int]]:
        """How many videos have each value of `field`, as (value, videos), most frequent first.

        `field` is codec, size ("320x240") or split.
        """
        expression = {"codec": "codec", "size": "width || 'x' || height", "split": "split"}[field]
        query = f"SELECT {expression}, COUNT(*) FROM videos GROUP BY 1 ORDER BY 2 DESC, 1"
        return [(str(value), int(count)) for value, count in self._db.execute(query)]

    def noted(self) -> dict[str, list[str]]:
        """What is odd about videos, and the names of those that it is true of: the note of most videos first.

        containers.notes has the notes. Names are those of `names`, sorted.
        """
        found: dict[str, list[str]] = {}
        query = (
            "SELECT note, path, begin_seconds, end_seconds FROM videos WHERE note != '' ORDER BY path, begin_seconds, "
            "end_seconds"
        )
        for note, path, begin, end in self._db.execute(query):
            for part in note.split("; "):
                found.setdefault(part, []).append(shown_key(path, None if end < 0 else (begin, end)))
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection of this process and thread: SQLite allows none to be used in another one."""
        here = os.getpid(), get_ident()
        if self._connection is None or self._connection[0] != here:
            self._connection = here, _connect_to_read(self.path)
        return self._connection[1]

    def _rebuild_hint(self, root: str | None) -> str:
        return f"delete it and run: r3d-fast data index {root or 'ROOT'} --index {self.path}"


def default_path(root: Path) -> Path:
    """The path of a new index of `root`: beside it, or in the current folder if that place can't be written."""
    resolved = root.resolve()
    beside = resolved.parent / (resolved.name + SUFFIX)
    # os.access says yes to a superuser. The mode bits are checked too, so that a folder marked read-only stays as it
    # is.
    writable = os.access(resolved.parent, os.W_OK) and bool(resolved.parent.stat().st_mode & 0o222)
    return beside if writable else Path.cwd() / (resolved.name + SUFFIX)


def find_index(root: str | Path) -> Path | None:
    """The existing index of the data set at `root`: beside it or in the current folder; None if there is none."""
    resolved = Path(root).resolve()
    for folder in (resolved.parent, Path.cwd()):
        path = folder / (resolved.name + SUFFIX)
        if path.is_file():
            return path
    return None


def write_index(
    path: Path,
    root: Path,
    data: Dataset,
    *,
    workers: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    progress: OnProgress | None = None,
    watch: OnFile | None = None,
) -> VideoIndex:
    """The index of the videos of `data` at `path`, made or brought up to date in one transaction."""
    write_tables(path, root, data, workers=workers, accept=accept, progress=progress, watch=watch)
    return VideoIndex(path, root)


def _record(row: Sequence[object]) -> VideoRecord:
    values: list[Any] = list(row[:FIELD_COUNT])
    values[_PARAMETERS] = StreamParameters.from_json(values[_PARAMETERS])
    values[_ORIENTATION] = Orientation.of_code(values[_ORIENTATION])
    return VideoRecord(*values)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection to read the index.

    It is opened for writing if possible, since SQLite may have to undo a build that was killed; else read-only.
    """
    address = "file:" + quote(str(path.resolve()))
    for mode in ("rw", "ro"):
        connection = sqlite3.connect(f"{address}?mode={mode}", uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            continue
        return connection
    raise sqlite3.DatabaseError("it can't be opened for reading")

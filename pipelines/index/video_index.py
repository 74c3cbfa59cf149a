"""VideoIndex: the index of a data set, with the videos, labels, splits and packet tables. It is an SQLite file.

The index is built once, by demuxing every video. A build writes a new file beside the old one and renames it: if it is
killed, the old index remains. A later build probes only files whose size or time of change differs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.containers.file_checks import ACCEPT_WHOLE, MAX_PIXELS, MOST_CORRUPT, TOO_DAMAGED, Acceptance
from pipelines.datasets.entries import Dataset, Missing
from pipelines.datasets.recognition import recognise_dataset
from pipelines.datasets.split_names import split_named
from pipelines.errors import DataError, IndexFileError
from pipelines.index.contents import Contents
from pipelines.index.database import OnProgress, Quarantined, write_tables
from pipelines.index.folds import Fold, assign_folds, fold_named
from pipelines.index.index_file import IndexFile, OtherVersion, application_id, kept_file, texts
from pipelines.index.known_bad import KnownBad, reasons_of
from pipelines.index.locations import default_path
from pipelines.index.probe_worker import OnFile
from pipelines.index.replacing import is_earlier, remedy_for
from pipelines.index.video_rows import FIELDS, check_fields, read_rows, record_of, shown_key, span_of
from pipelines.sampler import VideoColumns
from pipelines.video.orientation import Orientation
from pipelines.video.record import Span, VideoRecord

_SHARED = ("num_frames", "height", "width", "label")  # what rows of videos have, and columns too
_shared_of = itemgetter(*map(FIELDS.index, (*_SHARED, "split")))


class FileState(NamedTuple):
    """What a video's file was when it was probed: its path under the root, its size in bytes, its CRC-32."""

    path: str
    size: int
    checksum: str


class VideoIndex:
    """The videos of a data set, read from its index file.

    `len(index)` is the number of videos, and `index[i]` is the VideoRecord of video i; they are sorted by path and
    part. `classes` are the names of the classes by label, `splits` the names of the splits. `kind` is the form of data
    set that was recognised, `lists` the path of its list files ("" if it has none), `lists_split` the number of the
    split that was taken from the lists (None if they have no numbered splits). `rule` says how videos were held out for
    testing ("" where lists or folders name the splits), `ignored` counts the files that are not called like videos, by
    suffix. `options` are the arguments of `build` that make it again in the same way.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None, digest: str | None = None) -> None:
        """Open the index at `path`. `root` is the folder of the data set, if it was moved since it was indexed.

        With a `digest` it is the index that had this digest, also if it was made again since and is still in use.
        Raises IndexFileError if there is no index, or it is damaged, of another version, or has another digest.
        """
        self.path = Path(path)
        self._given_root = root
        self._is_checked = False  # whether the table of the videos is
        self._folds: dict[int, NDArray[np.int64]] = {}  # what `assign_folds` gave, by the number of folds
        self._file, contents = self._opened(digest)
        self._columns = contents.columns
        self._group_names = contents.groups
        self.classes, self.splits, self.warnings = contents.classes, contents.splits, contents.warnings
        self.ignored, self.options = contents.ignored, contents.options
        self.kind, self.digest, self.rule = contents.kind, contents.digest, contents.rule
        self.lists, self.lists_split = contents.lists, contents.lists_split
        self.root = Path(root if root is not None else contents.root)

    def _opened(self, digest: str | None) -> tuple[IndexFile, Contents]:
        """The file, and what it says. With a `digest` a file that was replaced is opened where it is kept."""
        kept = None if digest is None else kept_file(Path(os.path.realpath(self.path)), digest)
        if not self.path.is_file() and (kept is None or not kept.is_file()):
            raise IndexFileError(f"{self.path}: no such index; make one with: r3d-fast data index ROOT")
        with self._named_errors():
            for path in (self.path, *([] if kept is None else [kept])):
                try:
                    file = IndexFile(path)
                    contents = Contents.of(file)
                except IndexFileError:
                    if kept is None or path == kept or not kept.is_file():
                        raise
                    continue
                if digest in (None, contents.digest):
                    return file, contents
                if kept is None or path == kept or not kept.is_file():
                    break
        raise IndexFileError(
            f"{self.path}: was made again while in use, and has other videos now; start again with those, or index the "
            "videos as they were"
        )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Let errors of the file name it, and say what to do."""
        try:
            yield
        except IndexFileError as error:
            what = str(error) if isinstance(error, OtherVersion) else f"not a readable index ({error})"
            if application_id(self.path) == 0 and is_earlier(self.path):
                what = "an index of an earlier version"
            raise IndexFileError(f"{self.path}: {what}; {remedy_for(self.path, self._given_root)}") from error

    @classmethod
    def open(cls, path: str | Path, root: str | Path | None = None, digest: str | None = None) -> VideoIndex:
        """The index at `path`; see VideoIndex."""
        return cls(path, root, digest)

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
        group: str | None = None,
        allow_partial: bool = False,
        max_pixels: int = MAX_PIXELS,
        max_corrupt_fraction: float = MOST_CORRUPT,
        retry: bool = False,
        anew: bool = False,
        full: bool = False,
        progress: OnProgress | None = None,
        watch: OnFile | None = None,
    ) -> VideoIndex:
        """The index of the data set at `root`, made or brought up to date.

        `lists`, `split`, `val_fraction`, `follow_links` and `group` are those of `recognise_dataset`. `index` is the
        path of the index file; by default it is beside the data set, or in the current folder where that is not
        writable. `workers` processes probe the files (default: one for each usable CPU). With `allow_partial` a
        truncated video is used as far as it goes. Videos whose frames have more than `max_pixels` are left out, and of
        those that are decoded the ones with more than the share `max_corrupt_fraction` of damaged frames. Files that
        were left out before are probed again if they have changed, or with `retry` all of them. With `anew` all files
        are probed, as if there were no index yet; with `full` they are decoded too, also where headers tell all.
        `progress` is called with (files done, all files), `watch` with the path of a file that must be decoded, which
        can take minutes, and the share of it that is done, 0 to 1. Raises DataError if there is nothing to index,
        ListError for a bad list, UsageError if the index can't be written.
        """
        root = Path(root)
        data = recognise_dataset(
            root, lists=Path(lists) if lists else None, split=split, val_fraction=val_fraction,
            follow_links=follow_links, group=group,
        )  # fmt: skip
        options = {
            "lists": str(Path(lists).resolve()) if lists else None, "split": split, "val_fraction": val_fraction,
            "follow_links": follow_links, "group": group, "allow_partial": allow_partial, "max_pixels": max_pixels,
            "max_corrupt_fraction": max_corrupt_fraction,
        }  # fmt: skip
        data = replace(data, options=options)
        path = Path(index) if index is not None else default_path(root)
        accept = Acceptance(allow_partial, max_pixels, max_corrupt_fraction, full)
        return write_index(
            path, root, data, workers=workers, accept=accept, retry=retry, anew=anew, progress=progress, watch=watch
        )

    def __repr__(self) -> str:
        """What the index holds, in two lines."""
        splits = ", ".join(f"{name} {len(self.columns(name))}" for name in self.splits)
        videos = f"{len(self)} videos of {len(self.classes)} classes: {splits}"
        return f"VideoIndex({str(self.path)!r}, root={str(self.root)!r},\n{'':11}{videos})"

    def __len__(self) -> int:
        return len(self._columns["label"])

    def __getitem__(self, i: int) -> VideoRecord:
        if not 0 <= i < len(self):
            raise IndexError(f"video {i} of {len(self)}")
        i = int(i)  # SQLite takes no number of NumPy's
        with self._named_errors():
            fields, packets = read_rows(self._file, i)
            if next(self._shared(slice(i, i + 1))) != _shared_of(fields):
                raise IndexFileError(f"video {i} is another one in the columns")
            return record_of(fields, packets, i)

    def __reduce__(self) -> tuple[type[VideoIndex], tuple[str, str, str]]:
        """Pickle the path and the digest only: each process opens the file itself."""
        return type(self), (str(self.path), str(self.root), self.digest)

    def _check_videos(self) -> None:
        """Read the table of the videos, once, before questions are asked about many of them.

        Raises IndexFileError if it is damaged.
        """
        if self._is_checked:
            return
        with self._named_errors():
            known = self._shared(slice(None))
            for _, *fields, _digest in self._file.checked("videos"):
                check_fields(fields)
                if next(known, None) != _shared_of(fields):
                    raise IndexFileError("a video is another one in the columns")
            if next(known, None) is not None:
                raise IndexFileError(f"it has fewer than {len(self)} videos")
        self._is_checked = True

    def _shared(self, part: slice) -> Iterator[tuple[int | str, ...]]:
        """What the columns say of each video of a part, in the order of `_shared_of`."""
        splits = (self.splits[number] for number in self._columns["split"][part].tolist())
        return zip(*(self._columns[name][part].tolist() for name in _SHARED), splits, strict=True)

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that `query` gives of the table of the videos. Raises IndexFileError if that is damaged."""
        self._check_videos()
        with self._named_errors():
            return list(self._file.rows(query, *values))

    def names(self) -> tuple[str, ...]:
        """The name of each video, by number: its path relative to the root; for a part of a file ``PATH#t=10,20``."""
        return tuple(shown_key(path, span) for path, span in self._parts())

    def file_states(self) -> list[FileState]:
        """The state of the file of each video, by number; parts of a file have the same file."""
        return [FileState(*row) for row in self._rows("SELECT path, size, checksum FROM videos ORDER BY id")]

    def groups(self) -> tuple[str, ...]:
        """The name of the group of each video, by number: videos of one recording have the same; "" for one alone."""
        known = (*self._group_names, "")  # number -1 is that of a video that is alone
        return tuple(known[number] for number in self._columns["group"].tolist())

    @cached_property
    def known_bad(self) -> dict[int, str]:
        """Why each video that must not be decoded must not, by number: see KnownBad, which is read at the first use."""
        known = KnownBad(self.path).holding(self.root)
        return reasons_of(self._parts(), known) if known else {}

    def too_damaged(self, most: float) -> dict[int, str]:
        """Why each video of whose frames more than the share `most` are damaged must not be used, by number."""
        rows = self._rows("SELECT id, corrupt, num_frames FROM videos WHERE corrupt > 0") if most < 1 else []
        return {at - 1: f"{TOO_DAMAGED}: {bad} of {frames}" for at, bad, frames in rows if bad > most * frames}

    def never_decoded(self) -> int:
        """How many videos it is not known of how many of their frames are damaged."""
        return len(self._rows("SELECT id FROM videos WHERE corrupt < 0"))

    def _parts(self) -> list[tuple[str, Span | None]]:
        """The path of each video, by number, and the part of the file that it is."""
        rows = self._rows("SELECT path, begin_seconds, end_seconds FROM videos ORDER BY id")
        return [(path, span_of(begin, end)) for path, begin, end in rows]

    def own_split(self, split: str) -> str:
        """The name in this index of the split that is meant by `split`: "val" for "validation".

        The splits of `pipelines.index.folds` are in every index. Raises DataError if this one lacks the split.
        """
        if fold_named(split):
            return split
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
            fold = fold_named(split)
            rows = self._of_split(self.own_split(split)) if fold is None else self._of_fold(fold)
        wide = {name: self._columns[name][rows].astype(np.int64) for name in _SHARED}
        return VideoColumns(rows, wide["label"], wide["num_frames"], wide["height"], wide["width"])

    def frame_rates(self, split: str | None = None) -> NDArray[np.float64]:
        """The usual frame rate of each video of `split` (None: of all videos), in the order of `columns`: float64 [N].

        Raises DataError if the index does not have that split.
        """
        rates = np.array([rate for (rate,) in self._rows("SELECT fps FROM videos ORDER BY id")], np.float64)
        return rates[self.columns(split).video_id]

    @property
    def folds_all(self) -> bool:
        """Whether folds are made of all videos. Where lists or folders name the splits, they are of "train" alone."""
        return bool(self.rule) or "train" not in self.splits or len(self.splits) == 1

    def _of_split(self, split: str) -> NDArray[np.int64]:
        return np.flatnonzero(self._columns["split"] == self.splits.index(split))

    def _of_fold(self, fold: Fold) -> NDArray[np.int64]:
        """The numbers of the videos of a fold, or of the rest, in order. Raises DataError if there can't be so many."""
        among = np.arange(len(self)) if self.folds_all else self._of_split("train")
        if fold.parts not in self._folds:
            groups, names = self.groups(), self.names()
            keys = [groups[number] or names[number] for number in among.tolist()]
            labels = self._columns["label"][among].astype(np.int64)
            self._folds[fold.parts] = assign_folds(labels, keys, fold.parts)
        is_own = self._folds[fold.parts] == fold.part - 1
        chosen: NDArray[np.int64] = among[~is_own if fold.is_rest else is_own]
        return chosen

    def _condition(self, split: str | None) -> tuple[str, str | None]:
        """(condition for the videos of `split` in SQL, the value of its parameter ?1); None are all videos."""
        fold = None if split is None else fold_named(split)
        if fold is None:
            return "?1 IS NULL OR split = ?1", split
        return "id IN (SELECT value + 1 FROM json_each(?1))", json.dumps(self._of_fold(fold).tolist())

    @property
    def quarantined(self) -> list[Quarantined]:
        """The files that were left out, and why, sorted by path."""
        with self._named_errors():
            return [Quarantined(*texts(row, 3)) for row in self._file.checked("quarantine")]

    @property
    def missing(self) -> list[Missing]:
        """The videos in the lists that were not there when the index was built, in the order of the lists."""
        with self._named_errors():
            return [Missing(*texts(row, 2)) for row in self._file.checked("missing")]

    def largest_file(self, split: str | None = None) -> int:
        """The size in bytes of the largest file of `split` (None: of all splits); 0 if there is none."""
        condition, value = self._condition(split)
        ((largest,),) = self._rows(f"SELECT MAX(size) FROM videos WHERE {condition}", value)
        return int(largest or 0)

    def kinds(
        self, split: str | None = None, *, examples: int = 3, units: Mapping[str, int] | None = None
    ) -> list[tuple[list[VideoRecord], int]]:
        """The kinds of video in `split` (None: in all splits), each as (its first `examples` videos, number of videos).

        Videos are of one kind if they have the same codec, pixel format, matrix and range of colours, and note. `units`
        has a number of px by codec: then videos whose width and height are multiples of it are kinds of their own.
        """
        cases = [f"WHEN '{codec}' THEN width % {unit} OR height % {unit}" for codec, unit in (units or {}).items()]
        is_cut = f"CASE codec {' '.join(cases)} ELSE 0 END" if cases else "0"
        condition, value = self._condition(split)
        alike = "codec, pix_fmt, colorspace, color_range, note, is_cut"
        query = (
            f"SELECT id, place, count FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {alike} ORDER BY id) "
            f"AS place, COUNT(*) OVER (PARTITION BY {alike}) AS count FROM (SELECT *, "
            "json_extract(parameters, '$.colorspace') AS colorspace, "
            f"json_extract(parameters, '$.color_range') AS color_range, {is_cut} AS is_cut FROM videos "
            f"WHERE {condition})) "
            f"WHERE place <= ?2 ORDER BY {alike}, place"
        )
        found: list[tuple[list[VideoRecord], int]] = []
        for number, place, count in self._rows(query, value, examples):
            if place == 1:
                found.append(([], count))
            found[-1][0].append(self[number - 1])
        return found

    def sizes(self) -> list[tuple[str, int, int]]:
        """The (codec, width, height) that occur in the index, each once; sizes in px, of the frames as stored."""
        found = self._rows("SELECT DISTINCT codec, orientation, width, height FROM videos")
        return sorted({(codec, *Orientation.of_code(code).size(*size)) for codec, code, *size in found})

    def counts(self, field: str) -> list[tuple[str, int]]:
        """How many videos have each codec, size ("320x240") or split, as (value, videos), most frequent first."""
        expression = {"codec": "codec", "size": "width || 'x' || height", "split": "split"}[field]
        rows = self._rows(f"SELECT {expression}, COUNT(*) FROM videos GROUP BY 1 ORDER BY 2 DESC, 1")
        return [(str(value), int(count)) for value, count in rows]

    def noted(self) -> dict[str, list[str]]:
        """What is odd about videos, and the names of those that it is true of: the note of most videos first.

        containers.notes has the notes. Names are those of `names`, sorted.
        """
        found: dict[str, list[str]] = {}
        query = (
            "SELECT note, path, begin_seconds, end_seconds FROM videos WHERE note != '' ORDER BY path, begin_seconds, "
            "end_seconds"
        )
        for note, path, begin, end in self._rows(query):
            for part in note.split("; "):
                found.setdefault(part, []).append(shown_key(path, span_of(begin, end)))
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def write_index(
    path: Path, root: Path, data: Dataset, *, workers: int | None = None, accept: Acceptance = ACCEPT_WHOLE,
    retry: bool = False, anew: bool = False, progress: OnProgress | None = None, watch: OnFile | None = None,
) -> VideoIndex:  # fmt: skip
    """The index of the videos of `data` at `path`, made or brought up to date; the arguments are those of build."""
    look = {"retry": retry, "anew": anew}
    write_tables(path, root, data, workers=workers, accept=accept, progress=progress, watch=watch, **look)
    return VideoIndex(path, root)

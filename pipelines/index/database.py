"""Writes an index file whole: from the old one that it replaces, and from the files that have changed since."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from pipelines.containers.file_checks import ACCEPT_WHOLE, TOO_DAMAGED, TOO_LARGE, Acceptance
from pipelines.datasets.entries import Dataset, Entry
from pipelines.errors import IndexFileError, UsageError
from pipelines.index.index_file import APPLICATION_ID, PAGE_BYTES, SCHEMA, TABLES, IndexFile, encoded
from pipelines.index.known_bad import BadVideo, KnownBad
from pipelines.index.probe_pool import probe_all
from pipelines.index.probe_worker import OnFile, ProbeJob, ProbeResult, Unchanged
from pipelines.index.replacing import build_lock, check_replaceable, replacement
from pipelines.index.video_rows import FIELDS, Key, Row, check_fields, key_of, read_rows, row_digest, rows_of, shown_key
from pipelines.isolation.jobs import CRASHES, HANGS
from pipelines.output.files import new_file
from pipelines.video.record import VideoRecord

COLUMNS = ("label", "split", "num_frames", "height", "width", "group")  # little-endian int32 [videos], in `columns`
GROUP_NAMES = "group_names"  # of `columns`: the names of the groups by number, as JSON
OnProgress = Callable[[int, int], None]
_HINT = "choose another path with --index"
_AT = {name: place for place, name in enumerate(FIELDS)}


@dataclass(frozen=True)
class Quarantined:
    """A file that the index leaves out: its path relative to the root, a short reason, and details."""

    path: str
    reason: str
    detail: str = ""


class LeftOut(NamedTuple):
    """A row of the table `quarantine`: a video that is left out, and why.

    `size` in bytes and `mtime_ns` are those of its file, if its bytes prove the reason; with None it is tried again.
    """

    name: str
    reason: str
    detail: str
    size: int | None
    mtime_ns: int | None


Found = tuple[Row, Row] | LeftOut  # the two rows of a video, or why it is left out
_Source = ProbeJob | LeftOut | int  # where what is written of a video comes from; int: its number in the old index


def write_tables(
    path: Path,
    root: Path,
    data: Dataset,
    *,
    workers: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    retry: bool = False,
    anew: bool = False,
    progress: OnProgress | None = None,
    watch: OnFile | None = None,
) -> None:
    """Write the index of the videos of `data` to `path`, or bring the index there up to date.

    The arguments are those of VideoIndex.build. The new index is built beside the old one, which stays as it is until
    it is replaced. Raises UsageError where `path` can't be written, is another file than an index, or is being built
    by another process.
    """
    check_replaceable(path)
    with build_lock(path):
        known_bad = KnownBad(path)
        if retry:
            known_bad.clear()
        old = _Old.at(path, accept, retry=retry, anew=anew or accept.full)
        entries = sorted(data.entries, key=_key)
        bad = {key_of(item.path, item.span) for item in known_bad.holding(root)}  # of a whole file: all its parts
        sources = [
            old.source(entry, _stamp(root / entry.path), bool({_key(entry), key_of(entry.path, None)} & bad))
            for entry in entries
        ]
        probe = partial(probe_all, root=root, workers=workers, accept=accept, watch=watch)
        with replacement(path) as make_way, new_file(path, _HINT) as file:
            search = _Search(root, old, probe, progress)
            try:
                digest = write_database(
                    Path(file.name), root, data, accept, zip(entries, search.found(entries, sources), strict=True)
                )
            except sqlite3.Error as error:
                raise UsageError(f"{path}: the index can't be written ({error}); {_HINT}") from error
            os.fsync(file.fileno())  # before `make_way`, as this may take long
            old.close()
            make_way(old.digest, digest)
        known_bad.keep([item for item in known_bad.entries() if not search.settles(item)])


def write_database(
    path: Path, root: Path, data: Dataset, accept: Acceptance, videos: Iterable[tuple[Entry, Found]]
) -> str:
    """Fill the empty file at `path` with the index of `data`. Gives the digest of the data set.

    `videos` are the entries in the order of their paths and parts, each with its rows, or why it is left out. Raises
    sqlite3.Error.
    """
    splits = sorted({entry.split for entry in data.entries})
    digest, groups, columns = hashlib.sha256(), list[str](), list[tuple[int, ...]]()
    left_out: dict[str, LeftOut] = {}
    with closing(_new_database(path)) as db:
        tables = _Tables(db)
        for entry, found in videos:
            if isinstance(found, LeftOut):
                left_out[found.name] = found
                continue
            groups.append(entry.group)
            fields = (*found[0][:-2], entry.label, entry.split)
            tables.add("videos", (len(groups), *fields, row_digest(fields, found[1])))
            tables.add("packets", (len(groups), *found[1]))
            digest.update(_digested(fields, entry.split))
            shape = (fields[_AT[name]] for name in ("num_frames", "height", "width"))
            columns.append((entry.label, splits.index(entry.split), *shape))
        left_out |= {item.path: LeftOut(item.path, item.reason, "", None, None) for item in data.left_out}
        for name in sorted(left_out):
            tables.add("quarantine", left_out[name])
        for item in data.missing:
            tables.add("missing", (item.name, item.split))
        tables.add_columns(columns, groups)
        for pair in _meta(data, root, accept, splits, digest.hexdigest()).items():
            tables.add("meta", pair)
        tables.finish()
        db.execute("COMMIT")
    return digest.hexdigest()


def _new_database(path: Path) -> sqlite3.Connection:
    """A new database at `path`, an empty file, with all tables. Its file is not safe to use until it is closed."""
    # Only this process knows the file, and holds a lock on it, which on network disks is one against SQLite's too.
    db = sqlite3.connect(f"file:{quote(os.fsencode(path))}?nolock=1", uri=True, isolation_level=None)
    for setting in (
        f"page_size = {PAGE_BYTES}", "auto_vacuum = NONE", "encoding = 'UTF-8'", "journal_mode = OFF",
        "synchronous = OFF", "locking_mode = EXCLUSIVE", f"application_id = {APPLICATION_ID}",
        f"user_version = {SCHEMA}", "temp_store = MEMORY",
    ):  # fmt: skip
        db.execute(f"PRAGMA {setting}").close()
    db.execute("BEGIN")
    for name, columns in TABLES.items():
        db.execute(f"CREATE TABLE {name} ({columns})")
    return db


class _Tables:
    """The tables of a new index, and what their digests will be."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._digests = {name: hashlib.sha256() for name in TABLES if name not in ("packets", "digests")}

    def add(self, table: str, row: Sequence[Any]) -> None:
        """Write a row at the end of `table`. Raises sqlite3.Error."""
        if table in self._digests:
            self._digests[table].update(encoded(row))
        self._db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def add_columns(self, rows: Sequence[tuple[int, ...]], groups: Sequence[str]) -> None:
        """Write what the sampler loads as a whole; `rows` are of COLUMNS without the group, one for each video."""
        names = sorted(set(groups) - {""})
        number = {"": -1, **{name: place for place, name in enumerate(names)}}
        table = np.array([(*row, number[group]) for row, group in zip(rows, groups, strict=True)], "<i4")
        for name, column in zip(COLUMNS, table.reshape(-1, len(COLUMNS)).T, strict=True):
            self.add("columns", (name, np.ascontiguousarray(column).tobytes()))
        self.add("columns", (GROUP_NAMES, json.dumps(names).encode()))

    def finish(self) -> None:
        """Write the digests. Raises sqlite3.Error."""
        for name, digest in self._digests.items():
            self.add("digests", (name, digest.digest()))


@dataclass
class _Old:
    """What the index that is replaced knows of the files; nothing where there is none that can be trusted.

    `videos` has of each video its number, and the size, time of change and checksum of its file. `left_out` is the
    table `quarantine` by name.
    """

    file: IndexFile | None = None
    digest: str = ""
    videos: dict[Key, tuple[int, int, int, str]] = field(default_factory=dict)
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path, accept: Acceptance, *, retry: bool, anew: bool) -> _Old:
        """What the index at `path` knows that holds for `accept` too.

        With `retry` that is only of the videos it has, with `anew` nothing.
        """
        old = cls()
        try:
            old.file = IndexFile(path)
            meta = old.file.meta
            old.digest = meta.get("digest", "")
            if meta.get("partial") == str(accept.partial) and not anew:
                old.videos = dict(_known_videos(old.file, accept))
                left_out = [LeftOut(*row) for row in old.file.checked("quarantine")]
                holds = {
                    TOO_LARGE: meta.get("max_pixels") == str(accept.max_pixels),
                    TOO_DAMAGED: meta.get("max_corrupt") == str(accept.max_corrupt),
                }
                if not retry:
                    old.left_out = {item.name: item for item in left_out if holds.get(item.reason, True)}
        except (IndexFileError, TypeError):  # there is none, or it is damaged: all files are probed
            old.videos.clear()
        return old

    def source(self, entry: Entry, stamp: tuple[int, int] | None, again: bool) -> _Source:
        """Where what is written of a video comes from, whose file has `stamp`; if `again`, it is decoded."""
        number, size, mtime_ns, checksum = self.videos.get(_key(entry), (-1, -1, -1, ""))
        left_out = self.left_out.get(shown_key(entry.path, entry.span))
        if stamp is not None and not again:
            if stamp == (size, mtime_ns):
                return number
            if left_out is not None and stamp == left_out[3:]:
                return left_out
        was = (size, checksum) if stamp is not None and stamp[0] == size and not again else None
        return ProbeJob(entry.path, entry.span, was, entry.uncut, full=again)

    def rows(self, number: int) -> tuple[Row, Row] | None:
        """The rows of the video with this number; None if they are damaged."""
        assert self.file is not None
        try:
            return read_rows(self.file, number)
        except IndexFileError:
            return None

    def close(self) -> None:
        """Close the old index."""
        if self.file is not None:
            self.file.close()


def _known_videos(file: IndexFile, accept: Acceptance) -> Iterator[tuple[Key, tuple[int, int, int, str]]]:
    columns = [_AT[name] for name in ("path", "begin_seconds", "end_seconds", "size", "mtime_ns", "checksum")]
    for number, (_, *row, _digest) in enumerate(file.checked("videos")):
        check_fields(row)
        path, begin, end, size, mtime_ns, checksum = (row[place] for place in columns)
        is_damaged = row[_AT["corrupt"]] > accept.max_corrupt * row[_AT["num_frames"]]
        is_unknown = accept.decodes and row[_AT["corrupt"]] < 0
        if row[_AT["width"]] * row[_AT["height"]] <= accept.max_pixels and not is_damaged and not is_unknown:
            yield (path, begin, end), (number, size, mtime_ns, checksum)


@dataclass
class _Search:
    """Finds what is written of each video: of the `old` index what holds, and what `probe` gives for the other files.

    `proven` gets the videos that are left out because their bytes prove that they can't be used, `decoded` the paths of
    files that were decoded without that.
    """

    root: Path
    old: _Old
    probe: Callable[[Sequence[ProbeJob]], Iterator[ProbeResult]]
    progress: OnProgress | None
    proven: set[Key] = field(default_factory=set)
    decoded: set[str] = field(default_factory=set)

    def found(self, entries: Sequence[Entry], sources: Sequence[_Source]) -> Iterator[Found]:
        """Of each of `entries` its rows, or why it is left out."""
        jobs = [source for source in sources if isinstance(source, ProbeJob)]
        results, done = self.probe(jobs), len(entries) - len(jobs)
        for entry, source in zip(entries, sources, strict=True):
            found: Found | None
            if isinstance(source, ProbeJob):
                found = self._rows(entry, next(results))
                done += 1
                if self.progress is not None:
                    self.progress(done, len(entries))
            else:
                found = source if isinstance(source, LeftOut) else self.old.rows(source)
            if found is None:  # the old index is damaged there
                found = self._rows(entry, next(self.probe([ProbeJob(entry.path, entry.span, uncut=entry.uncut)])))
                assert found is not None
            yield found

    def settles(self, item: BadVideo) -> bool:
        """Whether an entry of the quarantine has had its day: its video is left out, or was decoded after all.

        That it took down a process, or is too damaged for somebody, holds beside a decode that succeeds.
        """
        is_refuted = item.path in self.decoded and item.reason not in (CRASHES, HANGS, TOO_DAMAGED)
        return is_refuted or key_of(item.path, item.span) in self.proven

    def _rows(self, entry: Entry, result: ProbeResult) -> Found | None:
        """What is written of a video, by what probing it gave; None if the old index should have it, but has not."""
        if isinstance(result, VideoRecord):
            if result.corrupt >= 0:
                self.decoded.add(entry.path)
            return rows_of(result)
        if isinstance(result, Unchanged):
            rows = self.old.rows(self.old.videos[_key(entry)][0])
            time = _AT["mtime_ns"]
            return rows and ((*rows[0][:time], result.mtime_ns, *rows[0][time + 1 :]), rows[1])
        # Without size and time the file is tried again by the next build, as an error that may pass asks for.
        proof = None if result.is_passing else _stamp(self.root / entry.path)
        if proof is not None:
            self.proven.add(_key(entry))
        name = shown_key(entry.path, entry.span)
        return LeftOut(name, result.reason, result.detail, *(proof or (None, None)))


def _digested(fields: Row, split: str) -> bytes:
    """What the digest of a data set has of a video."""
    path, size, frames, label, begin, end = (
        fields[_AT[name]] for name in ("path", "size", "num_frames", "label", "begin_seconds", "end_seconds")
    )
    part = f"\0{begin:g}\0{end:g}" if end >= 0 else ""
    return f"{path}\0{label}\0{split}\0{frames}\0{size}{part}\n".encode()


def _meta(data: Dataset, root: Path, accept: Acceptance, splits: Sequence[str], digest: str) -> dict[str, str]:
    """The facts about the data set, for the table `meta`."""
    return {
        "root": str(root.resolve()),
        "kind": data.kind,
        "lists": data.lists,
        "lists_split": "" if data.lists_split is None else str(data.lists_split),
        "rule": data.rule,
        "ignored": json.dumps(data.ignored),
        "options": json.dumps(data.options),
        "classes": json.dumps(data.classes),
        "splits": json.dumps(splits),
        "warnings": json.dumps(data.warnings),
        "digest": digest,
        "partial": str(accept.partial),
        "max_pixels": str(accept.max_pixels),
        "max_corrupt": str(accept.max_corrupt),
    }


def _key(entry: Entry) -> Key:
    return key_of(entry.path, entry.span)


def _stamp(path: Path) -> tuple[int, int] | None:
    """(size in bytes, time of the last change in ns) of a file; None where it can't be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns

"""Writes the tables of an index, in one transaction. `VideoIndex` reads them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from pipelines.containers.file_checks import ACCEPT_WHOLE, TOO_LARGE, Acceptance
from pipelines.datasets.entries import Dataset
from pipelines.errors import IndexFileError, UsageError, VideoError
from pipelines.index.probe_pool import OnFile, ProbeJob, ProbeResult, Unchanged, probe_all
from pipelines.video.record import Span

SCHEMA = 3
COLUMNS = ("rowid", "label", "split", "num_frames", "height", "width")
VIDEO_FIELDS = (
    "path, size, mtime_ns, num_frames, height, width, codec, decoder, pix_fmt, fps, container, extradata, packets, "
    "parameters, orientation, checksum, note, begin_seconds, end_seconds"
)
FIELD_COUNT = VIDEO_FIELDS.count(",") + 1
_KEY = "path, begin_seconds, end_seconds"
_OF_KEY = "WHERE path = ? AND begin_seconds = ? AND end_seconds = ?"
_DELETE = f"DELETE FROM videos {_OF_KEY}"
_WHOLE = (-1.0, -1.0)  # the span in the tables of a video that is a whole file
_TABLES = ("meta", "videos", "quarantine", "missing", "columns")
_CREATE = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS videos (id INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER, mtime_ns INTEGER,
  num_frames INTEGER, height INTEGER, width INTEGER, codec TEXT, decoder TEXT, pix_fmt TEXT, fps REAL, container TEXT,
  extradata BLOB, packets BLOB, parameters TEXT, orientation INTEGER, checksum TEXT, note TEXT,
  begin_seconds REAL NOT NULL DEFAULT -1, end_seconds REAL NOT NULL DEFAULT -1,
  label INTEGER NOT NULL DEFAULT -1, split TEXT NOT NULL DEFAULT '', UNIQUE (path, begin_seconds, end_seconds));
CREATE TABLE IF NOT EXISTS quarantine (path TEXT PRIMARY KEY, reason TEXT NOT NULL, detail TEXT NOT NULL,
  size INTEGER, mtime_ns INTEGER);
CREATE TABLE IF NOT EXISTS missing (name TEXT NOT NULL, split TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS columns (name TEXT PRIMARY KEY, data BLOB NOT NULL);
"""
OnProgress = Callable[[int, int], None]


def write_tables(
    path: Path,
    root: Path,
    data: Dataset,
    *,
    workers: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    progress: OnProgress | None = None,
    watch: OnFile | None = None,
) -> None:
    """Write the index of the videos of `data` to `path`, or bring the index there up to date.

    The arguments are those of VideoIndex.build. Raises UsageError where `path` can't be written, IndexFileError where
    it is another file than an index.
    """
    try:
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    except sqlite3.OperationalError as error:
        what = "it is a folder; expected a file" if path.is_dir() else error
        raise UsageError(
            f"{path}: the index can't be written there ({what}); choose another path with --index"
        ) from error
    with closing(connection):
        try:
            connection.execute("BEGIN IMMEDIATE")
            _drop_other_schema(connection)
            for statement in _CREATE.split(";"):
                connection.execute(statement)
            _update(connection, root, data, workers, accept, progress, watch)
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            locked = "locked" in str(error)
            hint = "another process is building it; wait for it" if locked else "choose another path with --index"
            raise UsageError(f"{path}: the index can't be written ({error}); {hint}") from error
        except sqlite3.DatabaseError as error:
            raise IndexFileError(
                f"{path}: not an r3d-fast index ({error}); delete it or choose another path with --index"
            ) from error


def _update(
    db: sqlite3.Connection,
    root: Path,
    data: Dataset,
    workers: int | None,
    accept: Acceptance,
    progress: OnProgress | None,
    watch: OnFile | None,
) -> None:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if meta.get("partial") not in (None, str(accept.partial)):
        for table in _TABLES:
            db.execute(f"DELETE FROM {table}")
    if meta.get("max_pixels") != str(accept.max_pixels):
        db.execute("DELETE FROM quarantine WHERE reason = ?", (TOO_LARGE,))
        db.execute("DELETE FROM videos WHERE width * height > ?", (accept.max_pixels,))
    # What each file was when it was probed: of usable videos, and of those that could not be read.
    rows = db.execute(f"SELECT {_KEY}, size, mtime_ns, checksum FROM videos")
    known = {(p, b, e): (size, mtime_ns, checksum) for p, b, e, size, mtime_ns, checksum in rows}
    bad = {p: (s, m) for p, s, m in db.execute("SELECT path, size, mtime_ns FROM quarantine WHERE size IS NOT NULL")}
    pending = []  # the new and changed ones, which must be probed
    for entry in data.entries:
        stamp = _stamp(root / entry.path)
        key = (entry.path, *(entry.span or _WHOLE))
        size, mtime_ns, checksum = known.get(key, (-1, -1, ""))
        if stamp is None or stamp not in ((size, mtime_ns), bad.get(shown_key(entry.path, entry.span))):
            was = (size, checksum) if stamp is not None and stamp[0] == size else None
            pending.append(ProbeJob(entry.path, entry.span, was, entry.uncut))
    wanted = {(entry.path, *(entry.span or _WHOLE)) for entry in data.entries}
    db.executemany(_DELETE, known.keys() - wanted)
    names = {shown_key(entry.path, entry.span) for entry in data.entries}
    pending_names = {shown_key(job.path, job.span) for job in pending}
    db.executemany("DELETE FROM quarantine WHERE path = ?", [(p,) for p in (bad.keys() - names) | pending_names])
    db.execute("DELETE FROM quarantine WHERE size IS NULL")
    done = len(data.entries) - len(pending)
    results = probe_all(pending, root, workers=workers, accept=accept, watch=watch)
    for i, result in enumerate(results):
        _store(db, root, pending[i], result)
        if progress is not None:
            progress(done + i + 1, len(data.entries))
    db.executemany(
        "INSERT OR REPLACE INTO quarantine VALUES (?, ?, '', NULL, NULL)", [(x.path, x.reason) for x in data.left_out]
    )
    db.execute("UPDATE videos SET label = -1, split = ''")
    db.executemany(
        f"UPDATE videos SET label = ?, split = ? {_OF_KEY}",
        ((e.label, e.split, e.path, *(e.span or _WHOLE)) for e in data.entries),
    )
    db.execute("DELETE FROM missing")
    db.executemany("INSERT INTO missing VALUES (?, ?)", [(item.name, item.split) for item in data.missing])
    _finish(db, root, data, accept)


def _drop_other_schema(db: sqlite3.Connection) -> None:
    """Drop the tables of another schema version, so that they are made anew and every file is probed again."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return
    found = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if found is not None and found[0] != str(SCHEMA):
        for table in _TABLES:
            db.execute(f"DROP TABLE IF EXISTS {table}")


def shown_key(path: str, span: Span | None) -> str:
    """The name of a video in lists and messages: its path; for a part of a file also the times, ``PATH#t=10,20``.

    The times are in seconds, in the form of a W3C media fragment.
    """
    return path if span is None else f"{path}#t={span[0]:g},{span[1]:g}"


def _store(db: sqlite3.Connection, root: Path, job: ProbeJob, result: ProbeResult) -> None:
    key = (job.path, *(job.span or _WHOLE))
    if isinstance(result, Unchanged):
        db.execute(f"UPDATE videos SET mtime_ns = ? {_OF_KEY}", (result.mtime_ns, *key))
        return
    db.execute(_DELETE, key)
    if isinstance(result, VideoError):
        size, mtime_ns = _stamp(root / job.path) or (-1, -1)
        db.execute(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)",
            (shown_key(job.path, job.span), result.reason, result.detail, size, mtime_ns),
        )
        return
    r = result
    row = (r.path, r.size, r.mtime_ns, r.num_frames, r.height, r.width, r.codec, r.decoder, r.pix_fmt, r.fps)
    places = ", ".join("?" * FIELD_COUNT)
    db.execute(
        f"INSERT INTO videos ({VIDEO_FIELDS}) VALUES ({places})",
        (
            *row,
            r.container,
            r.extradata,
            r.table,
            r.parameters.to_json(),
            r.orientation.code,
            r.checksum,
            r.note,
            r.begin_seconds,
            r.end_seconds,
        ),
    )


def _finish(db: sqlite3.Connection, root: Path, data: Dataset, accept: Acceptance) -> None:
    """Write the columns that the sampler loads as a whole, and the facts about the data set, among them its digest."""
    splits = sorted({entry.split for entry in data.entries})
    query = (
        "SELECT id, label, split, num_frames, height, width, path, size, begin_seconds, end_seconds FROM videos "
        f"ORDER BY {_KEY}"
    )
    rows = [(i, label, splits.index(s), *rest) for i, label, s, *rest in db.execute(query)]
    table = np.array([row[:6] for row in rows], np.int32).reshape(-1, 6)
    db.executemany(
        "INSERT OR REPLACE INTO columns VALUES (?, ?)",
        ((name, np.ascontiguousarray(table[:, k]).tobytes()) for k, name in enumerate(COLUMNS)),
    )
    digest = hashlib.sha256()
    for _, label, split, frames, _, _, path, size, begin, end in rows:
        part = f"\0{begin:g}\0{end:g}" if end >= 0 else ""
        digest.update(f"{path}\0{label}\0{splits[split]}\0{frames}\0{size}{part}\n".encode())
    values = {
        "schema": str(SCHEMA),
        "root": str(root.resolve()),
        "kind": data.kind,
        "lists": data.lists,
        "lists_split": "" if data.lists_split is None else str(data.lists_split),
        "classes": json.dumps(data.classes),
        "splits": json.dumps(splits),
        "warnings": json.dumps(data.warnings),
        "digest": digest.hexdigest(),
        "partial": str(accept.partial),
        "max_pixels": str(accept.max_pixels),
    }
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _stamp(path: Path) -> tuple[int, int] | None:
    """(size in bytes, time of the last change in ns) of a file; None where it can't be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns

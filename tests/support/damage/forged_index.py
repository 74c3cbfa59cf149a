"""Changes an index file as somebody would who means harm: with digests that are right again afterwards."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines.index.index_file import TABLES, encoded
from pipelines.index.video_index import VideoIndex
from pipelines.index.video_rows import FIELDS, row_digest
from pipelines.video.record import VideoRecord


def read_all(index: VideoIndex) -> list[VideoRecord]:
    """The videos of an index, once all else in it is read. Raises IndexFileError if any of it is damaged."""
    _ = index.names(), index.quarantined, index.missing
    return [index[number] for number in range(len(index))]


def forge(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    """Run SQL on the index at `path`, and write the digests that it then should have; the first one takes `values`."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF").close()
        for number, statement in enumerate(statements):
            db.execute(statement, values if number == 0 else ())
        for number, *row in db.execute(f"SELECT id, {', '.join(FIELDS)} FROM videos").fetchall():
            for packets in db.execute("SELECT extradata, packets FROM packets WHERE id = ?", (number,)).fetchall():
                db.execute("UPDATE videos SET digest = ? WHERE id = ?", (row_digest(tuple(row), packets), number))
        for table in TABLES.keys() - {"packets", "digests"}:
            digest = hashlib.sha256()
            for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid"):
                digest.update(encoded(row))
            db.execute("UPDATE digests SET digest = ? WHERE name = ?", (digest.digest(), table))
        db.execute("VACUUM")

"""IndexFile: an index file that is open for reading. Nothing in it is trusted before it is checked.

An index is an SQLite database, which one build writes whole and nobody changes: it has the application_id of r3d-fast
and, as user_version, the number of its schema. It has these tables and nothing else, no view, no trigger and no index.
The table `digests` has a SHA-256 of each of the others, but for `packets`: each row of `videos` has one of itself and
of its row there. `meta` and `columns` are checked when the file is opened, a row of `videos` when it is read, and a
table when all of it is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import stat
import struct
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, NoReturn
from urllib.parse import quote

from pipelines.errors import IndexFileError
from pipelines.input.regular_files import kind_of

APPLICATION_ID = 0x72336478  # "r3dx"
SCHEMA = 4
PAGE_BYTES = 4096
TABLES = {
    "meta": "key TEXT, value TEXT",
    "videos": (
        "id INTEGER PRIMARY KEY, path TEXT, size INTEGER, mtime_ns INTEGER, num_frames INTEGER, height INTEGER, "
        "width INTEGER, codec TEXT, decoder TEXT, pix_fmt TEXT, fps REAL, container TEXT, parameters TEXT, "
        "orientation INTEGER, checksum TEXT, note TEXT, begin_seconds REAL, end_seconds REAL, corrupt INTEGER, "
        "label INTEGER, split TEXT, digest BLOB"
    ),
    "packets": "id INTEGER PRIMARY KEY, extradata BLOB, packets BLOB",
    "quarantine": "path TEXT, reason TEXT, detail TEXT, size INTEGER, mtime_ns INTEGER",
    "missing": "name TEXT, split TEXT",
    "columns": "name TEXT, data BLOB",
    "digests": "name TEXT, digest BLOB",
}
_CREATED = [("table", name, name, f"CREATE TABLE {name} ({columns})") for name, columns in TABLES.items()]
_KEPT = ".kept"
# The header of an SQLite database and the start of its first page (https://www.sqlite.org/fileformat2.html, 1.3, 1.6).
_HEADER = struct.Struct(">16sHBBBBBBIIIIIIIIIIII20sII")
_FIRST_PAGE = struct.Struct(">BHH")  # of the page: its kind, its first free block, its number of cells
_MAGIC = b"SQLite format 3\0"
_LEAF = 13  # the kind of a page that holds rows
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG)
_OPENINGS = 50  # how often a file is opened again that another one replaces just then
_PAUSE = 0.02  # seconds between two of them; a build holds the lock while it renames two files
_STEPS = 10_000  # of SQLite's machine between two looks at how many it has done
_BASE_STEPS, _STEPS_A_BYTE = 20_000_000, 10  # that a query may take: a row has at least 20 bytes, and takes < 200
_BYTES_A_BYTE = 16  # of all rows of a table, as they are hashed, for each byte of the file: escapes take up to 10


class IndexFile:
    """An open index file.

    The rows of its tables `meta` and `columns` are `meta` and `blobs`. A build that replaces the file meanwhile leaves
    this one as it is, as long as it is open.
    """

    def __init__(self, path: Path) -> None:
        """Open the index at `path`. Raises IndexFileError, which says what is wrong with it, but not what to do."""
        self.path = Path(os.path.realpath(path))
        self._descriptor = _open_locked(self.path)
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}  # at most one, of a process and a thread
        self._close = weakref.finalize(self, _close, self._descriptor, self._connections)
        self._size = os.fstat(self._descriptor).st_size
        self._steps = _Steps(_BASE_STEPS + _STEPS_A_BYTE * self._size)
        _check_header(os.pread(self._descriptor, PAGE_BYTES, 0), self._size)
        with self._errors():
            self._digests = self._digests_by_table()
        self.meta: dict[str, str] = dict(texts(row, 2) for row in self.checked("meta"))  # type: ignore[misc]
        self.blobs: dict[str, bytes] = {}
        for name, data in self.checked("columns"):
            if not isinstance(name, str) or not isinstance(data, bytes):
                raise IndexFileError("the table columns is damaged")
            self.blobs[name] = data

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows that `query` gives, one after another. Raises IndexFileError where the file is damaged."""
        with self._errors():
            self._steps.done = 0
            # Without `map` a generator that ends early would close the cursor, which needs an open database.
            yield from map(tuple, self._db.execute(query, values))

    def close(self) -> None:
        """Let go of the file, so that a build need not keep it. What was read stays; nothing more can be read."""
        self._descriptor = -1
        self._close()

    def checked(self, table: str) -> Iterator[tuple[Any, ...]]:
        """All rows of `table`, without their rowid. Raises IndexFileError if they are not those that were written.

        That is known after the last row: until then nothing may be done with them that can't be undone.
        """
        digest, held = hashlib.sha256(), 0
        for count, (rowid, *row) in enumerate(self.rows(f"SELECT rowid, * FROM {table} ORDER BY rowid"), 1):
            text = encoded(row)
            held += len(text)
            # A file can be made in which many rows share the same bytes.
            if rowid != count or held > _BYTES_A_BYTE * self._size:
                raise IndexFileError(f"the table {table} is damaged")
            digest.update(text)
            yield tuple(row)
        if digest.digest() != self._digests.get(table):
            raise IndexFileError(f"the table {table} is damaged")

    def _digests_by_table(self) -> dict[str, bytes]:
        found = {}
        for name, digest in self.rows("SELECT name, digest FROM digests LIMIT ?", len(TABLES)):
            if not isinstance(name, str) or not isinstance(digest, bytes):
                raise IndexFileError("the table digests is damaged")
            found[name] = digest
        return found

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection of this process and thread: SQLite allows none to be used in another one."""
        here = os.getpid(), get_ident()
        if here not in self._connections:
            self._connections.clear()
            self._connections[here] = self._connect()
        return self._connections[here]

    def _connect(self) -> sqlite3.Connection:
        """A connection to the very file that was opened, wherever it lies now."""
        for path in (self.path, *kept_files(self.path)):
            if not self._is_at(path):
                continue
            # Nobody writes to the file, so SQLite needs no locks, and no journal may change what is read.
            db = connect_guarded(path, self._size, self._steps)
            if not self._is_at(path):
                db.close()
                continue
            found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid").fetchall()
            if found != _CREATED:
                db.close()
                raise IndexFileError("it has other tables than an index")
            return db
        raise IndexFileError("it was made again while in use; start again")

    def _is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            _raise(error)
        except UnicodeDecodeError as error:  # of a text of the file that SQLite puts into its own message
            raise IndexFileError("it is damaged: a text of it is no UTF-8") from error
        except MemoryError as error:
            raise IndexFileError("memory is short") from error


class OtherVersion(IndexFileError):
    """The index file is sound, but of another version of r3d-fast."""


@dataclass
class _Steps:
    """Counts the steps of a query; gives True once it has taken more than `most`: more than any of a sound file."""

    most: int
    done: int = 0

    def __call__(self) -> bool:
        self.done += _STEPS
        return self.done > self.most


def _close(descriptor: int, connections: dict[tuple[int, int], sqlite3.Connection]) -> None:
    """Close what an IndexFile has open. SQLite's connections are part of a cycle, so this is not left to Python."""
    for db in connections.values():
        db.close()
    connections.clear()
    os.close(descriptor)


def connect_guarded(path: Path, size: int, step: Callable[[], bool]) -> sqlite3.Connection:
    """A connection that only reads the SQLite database at `path`, which has `size` bytes and is not trusted.

    `step` is called every _STEPS steps of SQLite's machine, and interrupts it with True.
    """
    address = f"file:{quote(str(path))}?mode=ro&immutable=1"
    db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    db.set_progress_handler(step, _STEPS)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(size, 1 << 20))  # no value is longer than the file
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    db.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    # With mmap a file that shrinks would end the process.
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
        db.execute(f"PRAGMA {setting}").close()
    return db


def encoded(row: Iterable[Any]) -> bytes:
    """A row of a table as bytes, to be hashed: two rows that differ have different ones, in each version of Python."""
    values = list(row)
    blobs = [value for value in values if isinstance(value, bytes)]
    scalars = tuple((len(value),) if isinstance(value, bytes) else value for value in values)
    return b"".join([ascii(scalars).encode(), *blobs])


def application_id(path: Path) -> int | None:
    """The application_id of the SQLite database at `path`; None if it is none, or can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = os.pread(descriptor, _HEADER.size, 0)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(_HEADER.unpack(head)[19]) if len(head) == _HEADER.size and head[:16] == _MAGIC else None


def kept_file(path: Path, digest: str) -> Path:
    """Where the index with `digest` lies that was at `path`, and was replaced while it was in use."""
    return path.with_name(f".{path.name}.{digest[:16]}{_KEPT}")


def kept_files(path: Path) -> list[Path]:
    """The files of `kept_file` that are there for `path`, sorted."""
    start = f".{path.name}."
    try:
        names = sorted(name for name in os.listdir(path.parent) if name.startswith(start) and name.endswith(_KEPT))  # noqa: PTH208
    except OSError:
        return []
    return [path.with_name(name) for name in names]


def _open_locked(path: Path) -> int:
    """A descriptor of the file at `path`, with a lock that shows a build that it is in use."""
    for _ in range(_OPENINGS):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise IndexFileError(f"it can't be read ({error.strerror})") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IndexFileError(f"it is a {kind_of(os.fstat(descriptor).st_mode)}; expected a regular file")
            with suppress(OSError):  # some network disks have no locks
                _lock_shared(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except IndexFileError:
            os.close(descriptor)
            raise
        except OSError:  # it is being replaced, or is gone
            pass
        os.close(descriptor)
    raise IndexFileError("it is replaced all the time; try again")


def _lock_shared(descriptor: int) -> None:
    """Lock the file. After a second without success, it stays as it is: no honest build takes so long."""
    for _ in range(_OPENINGS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return


def _check_header(page: bytes, size: int) -> None:
    """Raise IndexFileError if the first page of a file of `size` bytes is not that of a whole index."""
    if len(page) < PAGE_BYTES or page[:16] != _MAGIC:
        raise IndexFileError("it is no SQLite database" if page else "it is empty")
    (_, page_bytes, *forms, _, pages, _, free, _, _, _, grown, encoding, schema, vacuum, owner, _, _, _) = (
        _HEADER.unpack_from(page)
    )
    if owner != APPLICATION_ID:
        raise IndexFileError("it is the database of another program")
    if schema != SCHEMA:
        raise OtherVersion(f"index schema {schema}, expected {SCHEMA}")
    if pages * PAGE_BYTES != size:
        raise IndexFileError(f"it has {size} bytes, expected {pages * PAGE_BYTES}")
    kind, _, cells = _FIRST_PAGE.unpack_from(page, _HEADER.size)
    plain = (page_bytes, forms, free, grown, vacuum, encoding) == (PAGE_BYTES, [1, 1, 0, 64, 32, 32], 0, 0, 0, 1)
    if not plain or kind != _LEAF or cells != len(TABLES):
        raise IndexFileError("its header is damaged")


def texts(row: tuple[Any, ...], count: int) -> tuple[str, ...]:
    """The first `count` values of a row. Raises IndexFileError if they are not all texts."""
    row = row[:count]
    if not all(isinstance(value, str) for value in row):
        raise IndexFileError("it has values of other types than an index")
    return row


def _raise(error: sqlite3.Error) -> NoReturn:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    what = "its tables do not end" if code == sqlite3.SQLITE_INTERRUPT else str(error)
    if code in _DAMAGE or isinstance(error, sqlite3.DataError):
        raise IndexFileError(f"it is damaged: {what}") from error
    raise IndexFileError(f"it can't be read: {what}") from error

"""Puts a new index file in the place of an old one: alone, and without harm to those that have the old one open."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.index.index_file import APPLICATION_ID, application_id, connect_guarded, kept_file, kept_files
from pipelines.index.locations import SUFFIX, rebuild_command
from pipelines.output.descriptors import STDOUT, descriptor_of
from pipelines.output.places import keep_as, write_errors
from pipelines.output.undoing import delete_file, undone

_HINT = "choose another path with --index"
_EARLIER = {"meta", "videos", "quarantine", "columns"}  # tables of an index of an earlier version, without our mark
_MOST_STEPS = 1000  # times 10,000 steps of SQLite's machine, to look into a file that may be no index
_LONGEST = 10_000  # bytes of a value that is taken from it


def check_replaceable(path: Path) -> None:
    """Raise UsageError if something else than an index is at `path`, which a build must not replace."""
    with write_errors(path, _HINT):
        if path == STDOUT or descriptor_of(path) is not None:
            raise OSError(errno.EINVAL, "it is an open file; expected the path of a file")
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return
        if not path.is_file():
            raise OSError(errno.EINVAL, f"it is a {'folder' if path.is_dir() else 'device or a pipe'}; expected a file")
    if size and not is_own(path):
        raise UsageError(f"{path}: not an r3d-fast index: it stays as it is; remove it, or {_HINT}")


def is_own(path: Path) -> bool:
    """Whether the file at `path` is an index of ours, sound or not, so that a build may replace it."""
    owner = application_id(path)
    if owner == 0:
        return is_earlier(path)
    return owner == APPLICATION_ID or (owner is None and path.suffix == SUFFIX)


def is_earlier(path: Path) -> bool:
    """Whether the file at `path` is an index of an earlier version of r3d-fast, which did not mark its files."""
    try:
        with closing(_connect(path)) as db:
            found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 100")}
    except (sqlite3.Error, UnicodeDecodeError, OSError):
        return path.suffix == SUFFIX
    return found >= _EARLIER


def remedy_for(path: Path, root: str | Path | None) -> str:
    """What to do about the file at `path`, which can't be used as an index, to end an error message with.

    `root` is the folder of the data set; None: the file may tell, or its place beside the folder.
    """
    meta = _readable_meta(path)
    try:
        options = json.loads(meta.get("options", "{}"))
    except (ValueError, RecursionError):
        options = {}
    beside = path.with_suffix("") if path.suffix == SUFFIX and path.with_suffix("").is_dir() else None
    command = rebuild_command(path, root or meta.get("root") or beside, options if isinstance(options, dict) else {})
    more = "" if "options" in meta else " and the options that it was made with"
    if is_own(path):
        return f"make it again with: {shlex.join(command)}{more}"
    if path.suffix == SUFFIX:
        return f"delete it and run: {shlex.join(command)}{more}"
    return "expected the file that `r3d-fast data index ROOT` wrote"  # nobody may be told to delete a video


def _readable_meta(path: Path) -> dict[str, str]:
    """What can be read of the table `meta` of a file that is damaged or of an earlier version."""
    try:
        with closing(_connect(path)) as db:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            rows = db.execute("SELECT key, value FROM meta WHERE key IN ('root', 'options') LIMIT 2").fetchall()
    except (sqlite3.Error, UnicodeDecodeError, OSError):
        return {}
    return {key: value for key, value in rows if isinstance(value, str) and "\0" not in value}


def _connect(path: Path) -> sqlite3.Connection:
    """A guarded connection to a file that may be no index."""
    steps = iter(range(_MOST_STEPS))
    return connect_guarded(path, path.stat().st_size, lambda: next(steps, None) is None)


@contextmanager
def build_lock(path: Path) -> Iterator[None]:
    """A block that no other process is in for the index at `path`.

    Raises UsageError if another process is building the index, or if nothing can be written there.
    """
    place = Path(os.path.realpath(path))
    lock = place.with_name(f".{place.name}.lock")
    with write_errors(path, _HINT):
        descriptor = _locked(lock)
    if descriptor is None:
        raise UsageError(f"{path}: the index can't be written: another process is building it; wait for it")
    try:
        with undone(partial(delete_file, lock)):
            yield
    finally:
        delete_file(lock)
        os.close(descriptor)


def _locked(lock: Path) -> int | None:
    """A descriptor of the file `lock`, locked; None if another process has locked it. Raises OSError."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(lock, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:  # the build that had it has ended just now
            pass
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # some network disks have no locks
                os.close(descriptor)
                raise
            return descriptor
        os.close(descriptor)


@contextmanager
def replacement(path: Path) -> Iterator[Callable[[str, str], None]]:
    """A block in which the index file at `path` is replaced, and what must be called just before.

    That is called with the digests of the old index and the new one. Where they differ and a process has the old one
    open, it stays beside the new one under the name of `kept_file`, so that the workers of that process can open it
    too. Until the end of the block others wait to open it. Such files that nobody uses any more are deleted.
    """
    place = Path(os.path.realpath(path))
    held: list[int] = []

    def make_way(old: str, new: str) -> None:
        for kept in kept_files(place):
            _delete_unused(kept)
        descriptor = _opened(place)
        if descriptor is not None:
            held.append(descriptor)
            if not _lock_alone(descriptor) and old not in ("", new):
                with suppress(OSError):
                    keep_as(place, kept_file(place, old))

    try:
        yield make_way
        if held:
            with suppress(OSError):  # of a build of an earlier version that was killed
                place.with_name(f"{place.name}-journal").unlink()
    finally:
        for descriptor in held:
            os.close(descriptor)


def _delete_unused(kept: Path) -> None:
    descriptor = _opened(kept)
    if descriptor is None:
        return
    try:
        if _lock_alone(descriptor):
            with suppress(OSError):
                kept.unlink()
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int | None:
    for access in (os.O_RDWR, os.O_RDONLY):  # some network disks lock only what may be written
        with suppress(OSError):
            return os.open(path, access | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    return None


def _lock_alone(descriptor: int) -> bool:
    """Lock a file that nobody else has locked. False if somebody has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are no locks, so nobody can have one
        return True
    return True

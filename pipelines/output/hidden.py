"""Hidden names beside a result while it is written. What killed processes left under such a name is deleted later.

Each process holds a lock (flock) on what it writes, from when it is made until it has its place. The system ends a lock
with its process, also where the process runs in another container or, on most network disks, on another machine. So
what nobody holds is left over. Where there are no locks, nothing is taken for that.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pipelines.output.undoing import delete_file, undone

MARK = "r3d-fast-"  # shows whose file it is
NEW, OLD = ".tmp", ".old"  # how the name of something new ends, and that of the folder that it replaces
_TOKEN_BYTES = 4
_DIGITS = frozenset("0123456789abcdef")
_LONGEST_NAME = 200  # bytes of NAME in the hidden name; file systems allow 255 in all
_PROBE = bytes(4096)  # one block of a file system: a full disk refuses it


def hidden_beside(place: Path, ending: str = NEW) -> Path:
    """A new hidden name in the same folder as `place`: `.NAME.r3d-fast-xxxxxxxx.tmp`."""
    return place.with_name(f"{_beginning(place)}{secrets.token_hex(_TOKEN_BYTES)}{ending}")


def _beginning(place: Path) -> str:
    name = os.fsdecode(os.fsencode(place.name)[:_LONGEST_NAME])
    return f".{name}.{MARK}"


@contextmanager
def held_file(place: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """(a hidden name beside `place`, a new file of that name to write to), held by this process and then closed.

    What is still there under that name at the end is deleted. Files for `place` that nobody holds any more are deleted
    first. Raises OSError.
    """
    sweep(place, folders=False)
    while True:
        building = hidden_beside(place)
        with undone(partial(delete_file, building)):
            try:
                with building.open("x+b") as file:
                    if hold(building, file.fileno()):
                        yield building, file
                        return
            finally:
                delete_file(building)


@contextmanager
def held_folder(place: Path) -> Iterator[Path]:
    """A new hidden folder beside `place`, held by this process, whatever it is renamed to. The parents are made too.

    At the end it is deleted if it still has that name, and so are the parents that were made and are empty then.
    Folders for `place` that nobody holds any more are deleted first. Raises OSError.
    """
    sweep(place, folders=True)
    while True:
        building = hidden_beside(place)
        clear = partial(_clear, building, [parent for parent in place.parents if not parent.exists()])
        with undone(clear):
            try:
                building.mkdir(parents=True)
                with _held(building) as is_ours:
                    if is_ours:
                        yield building
                        return
            finally:
                clear()


@contextmanager
def _held(building: Path) -> Iterator[bool]:
    """Whether this process holds the new folder `building` in the block: another may have taken it for a leftover."""
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(opened_folder(building))
        except FileNotFoundError:
            yield False
        else:
            yield hold(building, descriptor)


def _clear(building: Path, made: list[Path]) -> None:
    """Delete the folder `building`, and those of `made`, the folders above it, that are empty then."""
    shutil.rmtree(building, ignore_errors=True)
    for parent in made:
        with suppress(OSError):
            parent.rmdir()


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of `folder`. Raises OSError if it is not there, or is a link."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def hold(path: Path, descriptor: int) -> bool:
    """Lock what this process has made at `path` and opened as `descriptor`, until that is closed.

    False if another process has just taken it for something that nobody holds, and deletes it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def sweep(place: Path, ending: str = NEW, *, folders: bool) -> None:
    """Delete the hidden files, or `folders`, for `place` that this user's processes left when they were killed."""
    beginning = _beginning(place)
    with suppress(OSError):
        for name in os.listdir(place.parent):  # noqa: PTH208 - a folder may have many names
            if name.startswith(beginning) and name.endswith(ending) and _is_token(name[len(beginning) : -len(ending)]):
                delete_unheld(place.with_name(name), folders=folders)


def _is_token(text: str) -> bool:
    """Whether `text` is what `hidden_beside` draws."""
    return len(text) == 2 * _TOKEN_BYTES and _DIGITS.issuperset(text)


def delete_unheld(path: Path, *, folders: bool) -> None:
    """Delete this user's file at `path`, or with `folders` the folder, if no process holds it."""
    kind, access = (stat.S_IFDIR, os.O_RDONLY | os.O_DIRECTORY) if folders else (stat.S_IFREG, os.O_RDWR)
    with suppress(OSError):
        status = path.lstat()
        if stat.S_IFMT(status.st_mode) != kind or status.st_uid != os.geteuid():
            return
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folders:
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def try_out(place: Path) -> None:
    """Write a hidden file beside `place`, sync it, delete it. Raises OSError."""
    with held_file(place) as (_, file):
        file.write(_PROBE)
        file.flush()
        os.fsync(file.fileno())

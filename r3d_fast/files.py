"""Files and folders that are there whole or not at all. Every writer of r3d_fast and bench goes through this module.

A new one is built beside its place under a hidden name, `.NAME.xxxxxxxx.tmp`, synced to the disk and renamed; what
stood there before stays until then. A link is followed. Devices, pipes and stdout (`-`) are written as they are.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import UsageError
from r3d_fast.descriptors import STDOUT, descriptor_of, is_stdout, open_descriptor

_LONGEST_NAME = 200  # bytes of NAME in the hidden name; file systems take 255
_PROBE = bytes(4096)  # as much as any disk hands out at once
_PIECE = 1 << 22  # bytes read at once


@contextmanager
def write_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a UsageError that names `path`, says why it can't be written, and `hint`.

    A BrokenPipeError stays one: whoever read the pipe has gone, and the command ends without a message. So does an
    error without a number: Paddle raises such ones for what has nothing to do with files.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None and not isinstance(error, io.UnsupportedOperation):
            raise
        name = "stdout" if path == STDOUT else path
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            reason = f"there is no folder {path.parent}; make it first"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a part of the path is a file"
        else:
            reason = str(error.strerror or error)
        raise UsageError(f"{name}: can't be written: {reason}{f'; {hint}' if hint else ''}") from error


@contextmanager
def new_file(path: Path, hint: str = "") -> Iterator[BinaryIO]:
    """A file to write to; it takes the place of `path` once the block has ended well, and is gone after an error.

    Raises UsageError, which ends in `hint`, where `path` can't be written or is a folder.
    """
    with write_errors(path, hint), replaced_file(path) as file:
        yield file


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """`new_file` that raises OSError."""
    number = descriptor_of(path)
    if number is not None or path == STDOUT:
        with open_descriptor(number) as stream:
            yield stream
        return
    place = _resolve(path)
    if place is None:
        with path.open("wb") as stream:
            yield stream
        return
    building = _beside(place)
    try:
        with building.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        building.replace(place)
        _sync(place.parent)
    except BaseException:
        with suppress(OSError):
            building.unlink()
        raise


def write_file(path: Path, content: bytes, hint: str = "") -> None:
    """Write `content` to `path`. Raises UsageError like new_file."""
    with new_file(path, hint) as file:
        file.write(content)


def write_json(path: Path | None, values: Any, indent: int = 1) -> None:
    """Write `values` as JSON to the file, device or `-` that the user named; None: they named none.

    Raises UsageError like new_file, TypeError or ValueError for values that JSON does not have.
    """
    if path is not None:
        write_file(path, json.dumps(values, indent=indent).encode() + b"\n")


def check_writable(path: Path | None, hint: str = "") -> None:
    """Raise the UsageError that new_file would, before the long work whose result goes to `path` (None: nowhere).

    A file that is to be replaced is left alone: as much as a disk hands out at once is written beside it and deleted.
    """
    if path is None or path == STDOUT:
        return
    with write_errors(path, hint):
        number = descriptor_of(path)
        if number is not None:
            os.fstat(number)
            return
        place = _resolve(path)
        if place is not None:
            _probe(_beside(place))
        elif not os.access(path, os.W_OK):  # opening a pipe would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_outputs(*paths: Path | None) -> bool:
    """Whether one of the files that the user named is stdout; all other text then belongs on stderr.

    Raises UsageError where one of them can't be written, or two of them are stdout.
    """
    for path in paths:
        check_writable(path)
    count = sum(map(is_stdout, paths))
    if count > 1:
        raise UsageError(f"{count} results go to stdout; expected at most one: give the others a file")
    return count == 1


def make_folder(path: Path, hint: str = "") -> None:
    """Make `path` a folder that files can be written to. Raises UsageError, which ends in `hint`, where it can't be."""
    if path == STDOUT:
        raise UsageError(f"{path}: means stdout; expected a folder")
    with write_errors(path, hint):
        path.mkdir(parents=True, exist_ok=True)
        _probe(_beside(path / "probe"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill with a few files; it takes the place of `path` once the block has ended well.

    After an error it is gone, with the folders above it that were made for it. Raises UsageError where `path` is a file
    or can't be written.
    """
    with write_errors(path, "nothing was left there"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: can't be written: it is a file; expected a folder")
        with replaced_folder(path) as folder:
            yield folder


@contextmanager
def replaced_folder(path: Path, stand_by: Path | None = None) -> Iterator[Path]:
    """`new_folder` that raises OSError.

    A folder that is replaced lies under the name `stand_by` (default: a hidden one) between the two renames: a kill
    in that moment leaves it there.
    """
    place = Path(os.path.realpath(path))
    building = _beside(place)
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        building.mkdir(parents=True)
        yield building
        for folder, _, names in os.walk(building):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        _replace_folder(building, place, stand_by or _beside(place))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def _replace_folder(new: Path, place: Path, stand_by: Path) -> None:
    replaces = place.exists()
    if replaces:
        shutil.rmtree(stand_by, ignore_errors=True)
        place.rename(stand_by)
    try:
        new.rename(place)
    except OSError:
        if replaces:
            stand_by.rename(place)
        raise
    _sync(place.parent)
    shutil.rmtree(stand_by, ignore_errors=True)


def make_once(root: Path, marker: str, arguments: dict[str, Any], what: str, write: Callable[[Path], None]) -> None:
    """Have `write` fill the folder `root`, unless it was filled with the same `arguments` (JSON values) before.

    The file `marker` in it keeps the arguments. Raises UsageError, naming `what` is made, where `root` holds anything
    else or can't be written.
    """
    text = json.dumps(arguments, indent=1)
    if _is_made(root, marker, text, what):
        return
    place = Path(os.path.realpath(root))
    building = _beside(place)
    with write_errors(root):
        try:
            building.mkdir(parents=True)
            write(building)
            (building / marker).write_text(text, encoding="utf-8")
            try:
                put_in_place(building, place)
            except OSError:
                if not _is_made(root, marker, text, what):  # else another process was faster
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _is_made(root: Path, marker: str, text: str, what: str) -> bool:
    try:
        if (root / marker).read_text(encoding="utf-8") == text:
            return True
        found = f"holds a {what} made with other arguments"
    except (FileNotFoundError, NotADirectoryError):
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = f"exists and is no {what}"
    raise UsageError(f"{root}: {found}; give another folder, or remove this one first")


def put_in_place(new: Path, place: Path) -> None:
    """Rename `new`, a complete file or folder on the same disk, to `place`, and have it on the disk.

    A file replaces a file; a folder replaces nothing but an empty one. Raises OSError.
    """
    if new.is_dir():
        os.sync()  # one call takes less than one for each of thousands of files
    else:
        _sync(new)
    new.replace(place)
    _sync(place.parent)


def set_aside(path: Path, ending: str) -> None:
    """Rename `path` to `path` + `ending`, in place of what lies there, so that it counts no more. Raises OSError."""
    aside = path.with_name(path.name + ending)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def delete_folder(path: Path) -> None:
    """Delete a folder; half of it is never seen under its name. Raises OSError where it stays."""
    doomed = _beside(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def delete_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Delete what killed writes left in `folder`; only for whoever is its only writer."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's content in hexadecimal digits, by an algorithm of hashlib. Raises OSError."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _resolve(path: Path) -> Path | None:
    """The place behind links that a new file is renamed to; None for a device or a pipe, which is written as it is.

    Raises IsADirectoryError for a folder.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file")
    return Path(os.path.realpath(path)) if stat.S_ISREG(mode) else None


def _beside(place: Path) -> Path:
    """A new hidden name in the same folder."""
    name = os.fsdecode(os.fsencode(place.name)[:_LONGEST_NAME])
    return place.with_name(f".{name}.{secrets.token_hex(4)}.tmp")


def _probe(path: Path) -> None:
    """Write a file, sync it, delete it. Raises OSError."""
    try:
        with path.open("xb") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have `path`, a file or the names in a folder, on the disk when this returns. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # it may be written, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks can't sync a folder
            raise
    finally:
        os.close(descriptor)

"""Writes files and folders whole or not at all. All code in r3d_fast and bench that writes files uses this module.

A new file is written next to its final place under a hidden name, `.NAME.xxxxxxxx.tmp`, synced to the disk and then
renamed. Until then an older file of that name stays as it is. Symbolic links are followed. Devices, pipes and stdout
(`-`) can't be renamed to, so they are written directly.
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.datasets.video_files import is_video_name
from pipelines.errors import UsageError
from r3d_fast.descriptors import STDOUT, descriptor_of, is_stdout, open_descriptor

_LONGEST_NAME = 200  # bytes of NAME in the hidden name; file systems allow 255 in all
_PROBE = bytes(4096)  # one block of a file system: a full disk refuses it
_PIECE = 1 << 22  # bytes read at once


@contextmanager
def write_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a UsageError that names `path`, says why it can't be written, and adds `hint`.

    A BrokenPipeError is passed on: the program that read the pipe has ended, and the command then ends without a
    message. An OSError without an error number is passed on too, because Paddle raises such errors for other reasons.
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
    """A binary file to write to. It becomes `path` when the block ends without an error, and else is deleted.

    Raises UsageError, which ends in `hint`, if `path` can't be written or is a folder.
    """
    with write_errors(path, hint), replaced_file(path) as file:
        yield file


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """The same as `new_file`, but raises OSError instead of UsageError."""
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
    """Write `values` as JSON to `path`: a file, a device or `-` for stdout. Does nothing if `path` is None.

    Raises UsageError like new_file, and TypeError or ValueError for values that JSON can't express.
    """
    if path is not None:
        write_file(path, json.dumps(values, indent=indent).encode() + b"\n")


def check_writable(path: Path | None, hint: str = "") -> None:
    """Raise the UsageError that new_file would raise for `path`, for use before long work. None is accepted.

    An existing file is not touched: a small file is written next to it and deleted.
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
        elif not os.access(path, os.W_OK):  # not tried by opening it, because a pipe would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_outputs(*paths: Path | None, inputs: Iterable[Path] = ()) -> bool:
    """Whether one of `paths`, the output files that the user named, is stdout. All other text then goes to stderr.

    `inputs` are the other files that the command reads or writes. Raises UsageError if an output can't be written, is
    one of `inputs` or an existing video, or if two outputs are stdout or the same file.
    """
    for path in paths:
        check_writable(path)
    count = sum(map(is_stdout, paths))
    if count > 1:
        raise UsageError(f"{count} results go to stdout; expected at most one: name a file for each of the others")
    read = {Path(os.path.realpath(path)) for path in inputs}
    written: set[Path] = set()
    for path in paths:
        if path is None or path == STDOUT or descriptor_of(path) is not None:
            continue
        place = _resolve(path)
        if place is None:  # a device or a pipe may take several results
            continue
        if place in written:
            raise UsageError(f"{path}: two results go to this file; expected a file for each")
        is_video = place.exists() and (is_video_name(place.name) or is_video_name(path.name))
        if is_video or place in read:
            what = "it is a video" if is_video else "this command uses it"
            raise UsageError(f"{path}: can't be written: {what}; choose another file for the results")
        written.add(place)
    return count == 1


def make_folder(path: Path, hint: str = "") -> None:
    """Make the folder `path` if needed, and check that it can be written to.

    Raises UsageError, which ends in `hint`, if it can't.
    """
    if path == STDOUT:
        raise UsageError(f"{path}: means stdout; expected a folder")
    with write_errors(path, hint):
        path.mkdir(parents=True, exist_ok=True)
        _probe(_beside(path / "probe"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to put files into. It becomes `path` when the block ends without an error, and replaces a folder there.

    After an error it is deleted, with the parent folders that were made for it. Raises UsageError if `path` is a file
    or can't be written.
    """
    with write_errors(path, "nothing was left there"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: can't be written: it is a file; expected a folder")
        with replaced_folder(path) as folder:
            yield folder


@contextmanager
def replaced_folder(path: Path, stand_by: Path | None = None) -> Iterator[Path]:
    """The same as `new_folder`, but raises OSError instead of UsageError.

    A folder that is replaced is first renamed to `stand_by` (default: a hidden name), then the new one takes its place.
    If the process is killed between the two renames, the old folder is still there under that name.
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
    """Rename the folder `new` to `place`; an older folder there goes to `stand_by` meanwhile, and is then deleted."""
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
    """Call `write` to fill the folder `root`, unless it was filled with the same `arguments` (JSON values) before.

    The file `marker` in the folder stores the arguments. Raises UsageError, whose message calls the content `what`, if
    `root` contains anything else or can't be written.
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
                if not _is_made(root, marker, text, what):  # if it is, another process made the same meanwhile
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _is_made(root: Path, marker: str, text: str, what: str) -> bool:
    """Whether `root` was filled with the arguments `text` before. Raises UsageError if it contains anything else."""
    try:
        if (root / marker).read_text(encoding="utf-8") == text:
            return True
        found = f"holds a {what} made with other arguments"
    except (FileNotFoundError, NotADirectoryError):
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = f"exists, but is not a {what}"
    raise UsageError(f"{root}: {found}; give another folder, or remove this one first")


def put_in_place(new: Path, place: Path) -> None:
    """Sync `new`, a complete file or folder on the same disk, and rename it to `place`.

    A file may replace a file, a folder only an empty folder. Raises OSError.
    """
    if new.is_dir():
        os.sync()  # faster than to sync thousands of files one by one
    else:
        _sync(new)
    new.replace(place)
    _sync(place.parent)


def set_aside(path: Path, ending: str) -> None:
    """Rename the folder `path` to `path` + `ending`, so that it is no longer used. Raises OSError.

    A folder that already has that name is deleted.
    """
    aside = path.with_name(path.name + ending)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def delete_folder(path: Path) -> None:
    """Delete a folder. It is renamed first, so that nobody finds half of it under its name. Raises OSError."""
    doomed = _beside(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def delete_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Delete the temporary files that killed processes left in `folder`. No other process may be writing there."""
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
    """The path to rename a new file to, behind all links; None for a device or a pipe, which is written directly.

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
    """A new hidden name in the same folder as `place`."""
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
    """Write `path`, a file or the list of names in a folder, to the disk before returning. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # some files may be written, but not opened for reading
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks can't sync a folder
            raise
    finally:
        os.close(descriptor)

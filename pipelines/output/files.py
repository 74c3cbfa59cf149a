"""Writes files whole or not at all. All code that writes files uses this module, `folders` or `temporary`.

A new file is written next to its final place under a hidden name, `.NAME.r3d-fast-xxxxxxxx.tmp`, synced to the disk and
then renamed. Until then an older file of that name stays as it is. What a killed process left under a hidden name is
deleted when the same file is written again. Symbolic links are followed. Devices, pipes and stdout (`-`) can't be
renamed to, so they are written directly.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import UsageError
from pipelines.output.descriptors import STDOUT, check_stdout, descriptor_of, is_stdout, open_descriptor
from pipelines.output.hidden import held_file, try_out
from pipelines.output.pipes import held_pipe, hold_pipe, is_pipe
from pipelines.output.places import Hint, resolve, sync, write_errors
from pipelines.output.replaceable import why_kept, why_video

_PIECE = 1 << 22  # bytes read at once


@contextmanager
def new_file(path: Path, hint: Hint = "", *, follow: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write to. It becomes `path` when the block ends without an error, and else is deleted.

    `follow`: what is written to a link, a device or a pipe reaches what it stands for; if not, as for the files of a
    run, it is replaced. Raises UsageError, which ends in `hint`, if `path` can't be written or is a folder.
    """
    with write_errors(path, hint), replaced_file(path, follow=follow) as file:
        yield file


@contextmanager
def replaced_file(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """The same as `new_file`, but raises OSError instead of UsageError."""
    if follow:
        number = descriptor_of(path)
        if number is not None or path == STDOUT:
            with open_descriptor(number) as stream:
                yield stream
            return
        place = resolve(path)
        if place is None:
            with held_pipe(path) if is_pipe(path) else path.open("wb") as stream:
                yield stream
            return
    else:
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file")
        place = path
    with held_file(place) as (building, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        building.replace(place)
    sync(place.parent)


def write_file(path: Path, content: bytes, hint: Hint = "", *, follow: bool = True) -> None:
    """Write `content` to `path`. Raises UsageError like new_file, which says what `follow` means."""
    with new_file(path, hint, follow=follow) as file:
        file.write(content)


def write_json(path: Path | None, values: Any, indent: int = 1) -> None:
    """Write `values` as JSON to `path`: a file, a device or `-` for stdout. Does nothing if `path` is None.

    Raises UsageError like new_file, and TypeError or ValueError for values that JSON can't express.
    """
    if path is not None:
        write_file(path, json.dumps(values, indent=indent).encode() + b"\n")


def check_writable(path: Path | None, hint: Hint = "") -> None:
    """Raise the UsageError that new_file would raise for `path`, for use before long work. None is accepted.

    An existing file is not touched: a small file is written next to it and deleted. A pipe is opened until it is
    written to: one that nobody reads is refused.
    """
    if path is None:
        return
    with write_errors(path, hint):
        if path == STDOUT:
            check_stdout()
            return
        number = descriptor_of(path)
        if number is not None:
            os.fstat(number)
            return
        place = resolve(path)
        if place is not None:
            try_out(place)
        elif is_pipe(path):
            hold_pipe(path)
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_outputs(*paths: Path | None, inputs: Iterable[Path] = ()) -> bool:
    """Whether one of `paths`, the output files that the user named, is stdout. All other text then goes to stderr.

    `inputs` are the other files that the command reads or writes. Raises UsageError if an output can't be written, is
    one of `inputs` or what `why_video` or `why_kept` has a reason for, or if two outputs are stdout or the same file.
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
        place = resolve(path)
        if place is None:  # a device or a pipe may take several results
            continue
        if place in written:
            raise UsageError(f"{path}: two results go to this file; expected a file for each")
        used = "this command uses it" if place in read else ""
        if what := why_video(place, path) or used or why_kept(place):
            raise UsageError(f"{path}: can't be written: {what}; choose another file for the results")
        written.add(place)
    return count == 1


def put_in_place(new: Path, place: Path) -> None:
    """Sync `new`, a complete file or folder on the same disk, and rename it to `place`.

    A file may replace a file, a folder only an empty folder. Raises OSError.
    """
    if new.is_dir():
        os.sync()  # faster than to sync thousands of files one by one
    else:
        sync(new)
    new.replace(place)
    sync(place.parent)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's content in hexadecimal digits, by an algorithm of hashlib. Raises OSError."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()

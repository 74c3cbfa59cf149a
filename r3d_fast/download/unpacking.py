"""Unpacks ZIP and RAR archives: checks their content first, and makes the whole folder or none."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import rarfile

from pipelines.datasets.text_files import escaped, first_ten
from pipelines.errors import DataError, EnvironmentProblem, R3DFastError
from pipelines.output.files import put_in_place
from pipelines.output.undoing import undone
from r3d_fast.download.rar import Member, is_rar, open_rar, read_members
from r3d_fast.download.rar_readers import LIBRARY, TO_DO, rar_readers, unpack_with

OnProgress = Callable[[int, int], None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE_BYTES = 64 * 2**20  # has to stay free on the disk, because files take more room than their size
_CHUNK = 2**20
# Videos hardly shrink in an archive, lists of them to a twentieth. A ZIP file may hold a thousand times its size.
MOST_TIMES, _ALWAYS_UNPACKED = 100, 256 * 2**20  # a multiple of the archive's bytes; bytes that each may have
MOST_MEMBERS = 1_000_000  # Kinetics-700 has 650,000 videos
_UNPACKING = ".unpacking"
# Errors that reading a member of a damaged archive may raise.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, rarfile.Error)


def unpack(
    archive: Path,
    folder: Path,
    *,
    strip: str = "",
    readers: Sequence[str] | None = None,
    on_file: OnProgress | None = None,
) -> int:
    """Unpack a ZIP or RAR `archive` to the new folder `folder`, and return the number of files.

    If the archive has only a folder named `strip`, the content of that folder goes to `folder`. Names that lead out of
    the folder, links and devices are refused before anything is written. What an interrupted call left is deleted by
    the next one. `readers`: the RAR readers to try (default: those of rar_readers). `on_file` is called with the
    numbers of members unpacked and of all. Raises DataError for an archive that can't be used, EnvironmentProblem if no
    RAR reader is installed or the disk is full.
    """
    temporary = folder.with_name(f".{folder.name}{_UNPACKING}")
    is_zip = not is_rar(archive) and zipfile.is_zipfile(archive)  # a RAR archive that ends like a ZIP file would pass
    members = _zip_members(archive) if is_zip else read_members(archive)
    _check(archive, members)
    files = [member for member in members if member.kind == "file"]
    with _said(archive, folder, sum(member.size for member in files)), undone(partial(_remove, temporary)):
        _remove(temporary)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_room(archive, folder, sum(member.size for member in files))
        try:
            if is_zip:
                temporary.mkdir()
                with zipfile.ZipFile(archive) as file:
                    _unpack_members(archive, file, members, temporary, _counting(on_file, len(members)))
            else:
                _unpack_rar(archive, members, temporary, readers, on_file)
            inner = temporary / strip if strip and [path.name for path in temporary.iterdir()] == [strip] else temporary
            put_in_place(inner, folder)
        finally:
            _remove(temporary)
    return len(files)


def disk_is_full(error: OSError) -> bool:
    """Whether a write failed because the disk, or the user's share of it, is full."""
    return error.errno in _FULL


def out_of_room(what: str, folder: Path, needed: int) -> EnvironmentProblem:
    """The error to raise if the disk is too full: it says how much `what` needs in `folder`, and how much is free."""
    free = shutil.disk_usage(folder).free
    return EnvironmentProblem(
        f"{folder}: the disk is full: {what} needs {as_bytes(needed)}, {as_bytes(free)} are free; make room there, or "
        "give a folder on another disk, and run the command again: complete files are kept"
    )


def as_bytes(count: float) -> str:
    """A number of bytes as text, such as 6.93 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.2f} {unit}"
        count /= 1000
    raise AssertionError


def _check(archive: Path, members: Sequence[Member]) -> None:
    """Raise DataError if unpacking `members` would write anything but files and folders inside one folder."""
    _check_sizes(archive, members)
    if not any(member.kind == "file" for member in members):
        raise DataError(f"{archive}: the archive contains no file; download it again")
    refused = [f"{member.name!r} ({why})" for member in members if (why := _unsafe(member))]
    if refused:
        raise DataError(
            f"{archive}: refused, nothing was unpacked: {first_ten(refused)}; "
            "expected only files and folders below the folder to unpack to: get the archive from the official address"
        )
    seen: dict[str, str] = {}
    for member in members:
        name = member.name.rstrip("/")
        if (name in seen and "file" in (seen[name], member.kind)) or any(
            seen.get(above) == "file" for above in _above(name)
        ):
            raise DataError(
                f"{archive}: refused, nothing was unpacked: {name!r} collides with an earlier file or folder in it"
            )
        seen[name] = member.kind
        for above in _above(name):
            seen.setdefault(above, "folder")


def _check_sizes(archive: Path, members: Sequence[Member]) -> None:
    """Raise DataError where an archive unpacks to many times its own size, or to more files than any data set has."""
    size, unpacked = archive.stat().st_size, sum(member.size for member in members)
    most = max(MOST_TIMES * size, _ALWAYS_UNPACKED)
    if unpacked > most or len(members) > MOST_MEMBERS:
        raise DataError(
            f"{archive}: refused, nothing was unpacked: {len(members)} files and folders of {as_bytes(unpacked)} in an "
            f"archive of {as_bytes(size)}; expected at most {MOST_MEMBERS} of {as_bytes(most)}: get the archive from "
            "the official address"
        )


def _unsafe(member: Member) -> str:
    """Why a member is refused; empty if it is harmless."""
    name = member.name
    if member.kind not in ("file", "folder"):
        return member.kind
    if "\0" in name or not name.rstrip("/"):
        return "no name" if "\0" not in name else "a zero byte"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "absolute"
    parts = name.rstrip("/").split("/")
    if any(part in ("..", ".", "") for part in parts):
        return "leads out of the folder" if ".." in parts else "not a plain path"
    return "too long" if any(len(part.encode(errors="replace")) > 255 for part in parts) else ""


def _above(name: str) -> Iterator[str]:
    """The folders above the path `name`, the outermost first."""
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _zip_members(archive: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(archive) as file:
            return [_zip_member(archive, item) for item in file.infolist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DataError(f"{archive}: the archive is damaged: {error}; download it again") from error


def _zip_member(archive: Path, item: zipfile.ZipInfo) -> Member:
    if item.flag_bits & 1:
        raise DataError(f"{archive}: its files are encrypted; expected an archive without a password")
    mode = item.external_attr >> 16 if item.create_system == 3 else 0
    kind = "folder" if item.is_dir() else "file"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "link" if stat.S_ISLNK(mode) else "device"
    # orig_filename is the name in the archive; zipfile cuts the other one at a zero byte.
    return Member(item.orig_filename.replace("\\", "/"), kind, item.file_size, item.CRC)


def _unpack_members(
    archive: Path, file: Any, members: Sequence[Member], folder: Path, on_file: Callable[[], None]
) -> None:
    """Copy all `members` of the ZipFile or RarFile `file` into `folder`; both classes compare the checksums."""
    try:
        for member, item in zip(members, file.infolist(), strict=True):
            path = folder / member.name
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(item) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
            on_file()
    except _DAMAGE as error:
        raise DataError(f"{archive}: the archive is damaged: {error}; download it again") from error


def _unpack_rar(
    archive: Path, members: Sequence[Member], folder: Path, readers: Sequence[str] | None, on_file: OnProgress | None
) -> None:
    """Unpack with the first reader that succeeds.

    Raises EnvironmentProblem if there is none, DataError with the message of each reader if all fail.
    """
    if readers is None and all(member.is_stored or member.kind == "folder" for member in members):
        folder.mkdir()
        _unpack_members(archive, open_rar(archive), members, folder, _counting(on_file, len(members)))
        return
    readers = rar_readers() if readers is None else readers
    if not readers:
        raise EnvironmentProblem(
            f"{archive}: no program here unpacks RAR archives; install one: {TO_DO}, then run the command again"
        )
    reasons = []
    for name in readers:
        _remove(folder)
        folder.mkdir()
        try:
            unpack_with(name, archive, members, folder, _counting(on_file, len(members)))
            if name != LIBRARY:  # the library has compared all checksums itself
                _check_result(folder, members)
        except DataError as error:
            if "No space left" in str(error) or shutil.disk_usage(folder).free < _SPARE_BYTES:
                raise OSError(errno.ENOSPC, str(error)) from error
            reasons.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
        else:
            return
    raise DataError(
        f"{archive}: can't be unpacked: {'; '.join(reasons)}; download it again, or install another reader: {TO_DO}"
    )


def _check_result(folder: Path, members: Sequence[Member]) -> None:
    """Raise DataError unless `folder` has exactly the files of `members`, by size and checksum, and folders.

    Names are not compared, because the programs write names outside ASCII in different ways. This is needed because
    bsdtar does not compare checksums itself.
    """
    files = [member for member in members if member.kind == "file"]
    has_checksums = all(member.crc is not None for member in files)
    found: list[tuple[int, int]] = []
    for above, folders, names in os.walk(folder):
        for path in (Path(above, name) for name in [*folders, *names]):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_size, _checksum(path) if has_checksums else 0))
            elif not stat.S_ISDIR(status.st_mode):
                raise DataError(f"refused: {escaped(path.name)} is neither a file nor a folder")
    wanted = [(member.size, (member.crc or 0) if has_checksums else 0) for member in files]
    if sorted(found) != sorted(wanted):
        wrong = sum((Counter(wanted) - Counter(found)).values())
        raise DataError(f"{wrong} of {len(wanted)} files differ in size or checksum from what the archive says")


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _check_room(archive: Path, folder: Path, needed: int) -> None:
    """Raise EnvironmentProblem if there are less than `needed` bytes, and some to spare, for `folder`."""
    if shutil.disk_usage(folder.parent).free < needed + _SPARE_BYTES:
        raise out_of_room(f"unpacking {archive.name}", folder.parent, needed + _SPARE_BYTES)


@contextmanager
def _said(archive: Path, folder: Path, needed: int) -> Iterator[None]:
    """Turn an OSError of the block into an EnvironmentProblem that says what to do."""
    try:
        yield
    except R3DFastError:
        raise
    except OSError as error:
        if disk_is_full(error):
            raise out_of_room(f"unpacking {archive.name}", folder.parent, needed) from error
        raise EnvironmentProblem(f"{folder}: can't be written: {error.strerror or error}") from error


def _counting(on_file: OnProgress | None, total: int) -> Callable[[], None]:
    """A function that counts its calls and passes the number, and `total`, to `on_file`."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_file is not None:
            on_file(done, total)

    return count


def _remove(folder: Path) -> None:
    """Delete a folder that an earlier call left, even if it contains read-only folders of an archive."""
    for above, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(above, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

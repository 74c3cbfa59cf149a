"""Lists the content of a RAR archive from its headers, with rarfile: formats 4 (RAR 1.5 to 4.x) and 5 (5.0 to 7.x).

This way the names and sizes are checked before anything is unpacked.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import rarfile

from pipelines.errors import DataError

# Otherwise rarfile would start a program to unpack the archive's comment while it reads the headers.
rarfile.RAR_MAX_COMMENT = -1
# Otherwise rarfile would read names that aren't UTF-8 as UTF-16. Now it uses its DEFAULT_CHARSET, windows-1252.
rarfile.TRY_ENCODINGS = ("utf-8",)
_SPLIT = rarfile.RAR_FILE_SPLIT_BEFORE | rarfile.RAR_FILE_SPLIT_AFTER


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    `name`: its path with "/". `kind`: "file", "folder", "link" or "device". `size`: bytes when unpacked. `crc`: CRC-32,
    None if the archive does not have it. `is_stored`: the file is in the archive without compression.
    """

    name: str
    kind: str
    size: int
    crc: int | None
    is_stored: bool = False


def is_rar(archive: Path) -> bool:
    """Whether the file begins like a RAR archive."""
    return bool(rarfile.is_rarfile(archive))


def read_members(archive: Path) -> list[Member]:
    """All members of `archive`, in its order.

    Raises DataError if it is not a RAR archive, damaged, encrypted, or one of several volumes.
    """
    items = open_rar(archive).infolist()
    with archive.open("rb") as file:
        return [_member(archive, file, item) for item in items]


def open_rar(archive: Path) -> Any:
    """The archive as a rarfile.RarFile, which has the methods of a ZipFile. Raises DataError like read_members."""
    if not is_rar(archive):
        with archive.open("rb") as file:
            begin = file.read(8)
        raise DataError(f"{archive}: not a RAR archive (it begins with {begin!r}); expected one, download it again")
    size, end, kind = archive.stat().st_size, 0, None

    def on_block(block: Any) -> None:
        nonlocal end, kind
        end, kind = block.data_offset + block.add_size, block.type
        if end > size:
            raise rarfile.BadRarFile(f"{end - size} bytes are missing at its end")
        if kind == rarfile.RAR_BLOCK_MAIN and block.flags & rarfile.RAR_MAIN_VOLUME:
            raise DataError(f"{archive}: it is one volume of several; expected an archive in a single file")
        if kind == rarfile.RAR_BLOCK_FILE and block.flags & _SPLIT:
            raise DataError(f"{archive}: a file continues in another volume; expected an archive in a single file")

    try:
        # part_only: don't look for other volumes next to it.
        opened = rarfile.RarFile(archive, info_callback=on_block, part_only=True)
        if opened.needs_password():
            what = "files" if any(item.needs_password() for item in opened.infolist()) else "headers"
            raise DataError(f"{archive}: its {what} are encrypted; expected an archive without a password")
        # rarfile stops at a damaged header as if the archive ended there.
        if kind != rarfile.RAR_BLOCK_ENDARC and end != size:
            raise rarfile.BadRarFile(opened.strerror() or f"no header at {end}")
    except DataError:
        raise
    except (rarfile.Error, ArithmeticError, LookupError, ValueError) as error:
        raise DataError(f"{archive}: the archive is cut short or damaged: {error}; download it again") from error
    return opened


def _member(archive: Path, file: BinaryIO, item: Any) -> Member:
    """The Member that rarfile's `item` describes; `file` is the open archive. Raises DataError."""
    file.seek(item.header_offset)
    is_cut = _has_zero_byte(file.read(item.header_size), item)
    name = item.filename.rstrip("/").replace("\\", "/") + "\0" * is_cut
    if getattr(item, "file_flags", 0) & rarfile.RAR5_FILE_FLAG_UNKNOWN_SIZE:
        raise DataError(f"{archive}: the size of {name!r} is not in the archive; expected the size of each file")
    kind = "folder" if item.is_dir() else _kind(item.mode if item.host_os == rarfile.RAR_OS_UNIX else 0)
    is_stored = item.compress_type == rarfile.RAR_M0 and item.compress_size == item.file_size
    return Member(name, "link" if item.file_redir else kind, item.file_size, item.CRC, is_stored)


def _kind(mode: int) -> str:
    """The `kind` of a member with the Unix mode `mode`."""
    if stat.S_IFMT(mode) in (0, stat.S_IFREG):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "device"


def _has_zero_byte(header: bytes, item: Any) -> bool:
    """Whether the name in `header` continues after a zero byte, at which rarfile cuts it."""
    name = item.orig_filename
    if isinstance(item, rarfile.Rar3Info):
        return not item.flags & rarfile.RAR_FILE_UNICODE and header[26:28] != len(name).to_bytes(2, "little")
    # RAR 5: the length of the name (seven bits per byte), the name, and then the extra records.
    low, high = len(name) & 127, min(len(name) >> 7, 255)
    length = bytes([low | 128, high] if high else [low])
    return not header[: len(header) - item.block_extra_size].endswith(length + name)

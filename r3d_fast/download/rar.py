"""What a RAR archive holds, read from its headers alone: versions 4 (1.5 to 4.x) and 5 (5.0 to 7.x).

Whatever unpacks it, what it would write is known and checked beforehand. Sources: RARLAB's technote.txt of RAR 4.20
and "RAR 5.0 archive format".
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import DataError

_MARK_4 = b"Rar!\x1a\x07\0"
_MARK_5 = b"Rar!\x1a\x07\1\0"
_MOST_HEADER_BYTES = 2**21  # RAR 5's own limit
_UNIX_4, _UNIX_5 = 3, 1
_LINK_RECORD = 5


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive: its name with "/", and of a file its size in bytes and CRC-32 (None: not stored).

    `kind` is "file", "folder", or what else it would be. `data` is where its packed bytes begin in the archive, which
    are the file itself where it `is_stored`.
    """

    name: str
    kind: str
    size: int
    crc: int | None
    is_stored: bool = False
    data: int = 0


def is_rar(archive: Path) -> bool:
    """Whether a file begins as a RAR archive does."""
    with archive.open("rb") as file:
        return file.read(len(_MARK_5)).startswith((_MARK_4, _MARK_5))


def read_members(archive: Path) -> list[Member]:
    """All members of `archive`, in order. Raises DataError if it is no RAR archive, damaged, encrypted or a volume."""
    try:
        with archive.open("rb") as file:
            mark = file.read(len(_MARK_5))
            if mark == _MARK_5:
                return list(_members_5(file))
            if mark.startswith(_MARK_4):
                file.seek(len(_MARK_4))
                return list(_members_4(file))
    except (struct.error, IndexError, EOFError) as error:
        raise DataError(f"{archive}: the archive is cut short or damaged: {error}; download it again") from error
    except _Refused as refused:
        raise DataError(f"{archive}: {refused}") from refused
    raise DataError(f"{archive}: not a RAR archive (it begins with {mark!r}); expected one, download it again")


class _Refused(Exception):
    """Why an archive is not taken."""


def _members_4(file: BinaryIO) -> Iterator[Member]:
    end = file.seek(0, 2)
    at = len(_MARK_4)
    while at < end:
        file.seek(at)
        head = _exactly(file, 7)
        checksum, kind, flags, size = struct.unpack("<HBHH", head)
        if size < 7:
            raise EOFError(f"a header of {size} bytes at {at}")
        header = head + _exactly(file, size - 7)
        if zlib.crc32(header[2:]) & 0xFFFF != checksum:
            raise EOFError(f"the header at {at} does not have its checksum")
        if kind == 0x7B:
            return
        if kind == 0x73 and flags & 0x80:
            raise _Refused("its headers are encrypted; expected an open archive")
        if kind == 0x73 and flags & 0x01:
            raise _Refused("it is one volume of several; expected a whole archive")
        packed = struct.unpack_from("<I", header, 7)[0] if flags & 0x8000 else 0
        if kind == 0x74:
            packed, member = _file_4(header, flags, at + size)
            yield member
        at += size + packed
    if at > end:
        raise EOFError(f"{at - end} bytes are missing at its end")


def _file_4(header: bytes, flags: int, data: int) -> tuple[int, Member]:
    """(packed bytes, the member) of a file header."""
    packed, size, system, crc, _, _, method, length, mode = struct.unpack_from("<IIBIIBBHI", header, 7)
    at = 32
    if flags & 0x100:
        high_packed, high_size = struct.unpack_from("<II", header, at)
        packed, size, at = packed | high_packed << 32, size | high_size << 32, at + 8
    if flags & 0x03:
        raise _Refused("a file goes on in another volume; expected a whole archive")
    if flags & 0x04:
        raise _Refused("its files are encrypted; expected an open archive")
    name = _name_4(header[at : at + length], bool(flags & 0x200))
    kind = "folder" if flags & 0xE0 == 0xE0 else _kind(mode if system == _UNIX_4 else 0)
    return packed, Member(name, kind, size, crc, method == 0x30 and packed == size, data)


def _name_4(name: bytes, is_unicode: bool) -> str:
    plain, mark, encoded = name.partition(b"\0")
    if is_unicode and mark:
        return _clean(_expand(plain, encoded))
    try:
        return _clean(name.decode("utf-8"))
    except UnicodeDecodeError:
        return _clean(name.decode("cp1252", errors="replace"))


def _expand(plain: bytes, encoded: bytes) -> str:
    """The name that RAR 4 writes as its difference from `plain`: pairs of bits say what each character comes from."""
    high, at, out = encoded[0], 1, list[int]()
    flags = bits = 0
    while at < len(encoded):
        if not bits:
            flags, bits, at = encoded[at], 8, at + 1
            continue
        bits -= 2
        choice = flags >> bits & 3
        if choice == 0:
            out.append(encoded[at])
        elif choice == 1:
            out.append(encoded[at] | high << 8)
        elif choice == 2:
            out.append(encoded[at] | encoded[at + 1] << 8)
            at += 1
        else:
            count = encoded[at]
            if count & 0x80:
                at += 1
                out += ((plain[len(out) + i] + encoded[at] & 0xFF) | high << 8 for i in range((count & 0x7F) + 2))
            else:
                out += plain[len(out) : len(out) + count + 2]
        at += 1
    return struct.pack(f"<{len(out)}H", *out).decode("utf-16-le", errors="replace")


def _members_5(file: BinaryIO) -> Iterator[Member]:
    end = file.seek(0, 2)
    at = len(_MARK_5)
    while at < end:
        file.seek(at)
        start = _exactly(file, 5)
        start += b"" if start[4] < 0x80 else _exactly(file, 1)
        start += b"" if start[-1] < 0x80 else _exactly(file, 1)
        size, where = _number(start, 4)
        if size > _MOST_HEADER_BYTES:
            raise EOFError(f"a header of {size} bytes at {at}")
        header = start + _exactly(file, size)
        if zlib.crc32(header[4:]) != struct.unpack_from("<I", header)[0]:
            raise EOFError(f"the header at {at} does not have its checksum")
        kind, where = _number(header, where)
        flags, where = _number(header, where)
        extra, where = _number(header, where) if flags & 1 else (0, where)
        packed, where = _number(header, where) if flags & 2 else (0, where)
        if kind == 5:
            return
        if kind == 4:
            raise _Refused("its headers are encrypted; expected an open archive")
        if (kind == 1 and _number(header, where)[0] & 1) or flags & 0x18:
            raise _Refused("it is one volume of several; expected a whole archive")
        if kind == 2:
            yield _file_5(header, where, len(header) - extra, packed, at + len(header))
        at += len(header) + packed
    if at > end:
        raise EOFError(f"{at - end} bytes are missing at its end")


def _file_5(header: bytes, at: int, extra: int, packed: int, data: int) -> Member:
    flags, at = _number(header, at)
    size, at = _number(header, at)
    mode, at = _number(header, at)
    at += 4 if flags & 2 else 0
    crc = struct.unpack_from("<I", header, at)[0] if flags & 4 else None
    at += 4 if flags & 4 else 0
    method, at = _number(header, at)
    system, at = _number(header, at)
    length, at = _number(header, at)
    name = _clean(header[at : at + length].decode("utf-8", errors="replace"))
    kind = "folder" if flags & 1 else _kind(mode if system == _UNIX_5 else 0)
    while extra < len(header):
        record, inside = _number(header, extra)
        what, _ = _number(header, inside)
        if what == 1:
            raise _Refused("its files are encrypted; expected an open archive")
        kind = "link" if what == _LINK_RECORD else kind
        extra = inside + record
    if flags & 8:
        raise _Refused(f"{name!r}: its size is not known; expected the size of each file")
    return Member(name, kind, size, crc, method >> 7 & 7 == 0 and packed == size, data)


def _kind(mode: int) -> str:
    """What a file with Unix mode `mode` is."""
    if stat.S_IFMT(mode) in (0, stat.S_IFREG):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "device"


def _clean(name: str) -> str:
    return name.replace("\\", "/")


def _number(header: bytes, at: int) -> tuple[int, int]:
    """(a number of RAR 5, seven bits a byte, where it ends)."""
    value = shift = 0
    while True:
        value |= (header[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if header[at - 1] < 0x80:
            return value, at


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("a header is cut short")
    return data

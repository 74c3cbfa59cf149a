"""Makes RAR archives of versions 4 and 5 with stored files, byte by byte, since no free program writes RAR.

The packed archives in `PACKED` were made once by rars 0.12.3 from PyPI; RARLAB's own code reads the same from them.
"""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
PACKED = [GOLDEN / f"rar{version}-{kind}.rar" for version in (4, 5) for kind in ("plain", "solid")]


def packed_text(number: int) -> bytes:
    """The content of file ``UCF-101/Class<number>/v_ü<number>.avi`` in each archive of `PACKED`; there are three."""
    return b"".join(b"%d squared is %d\n" % (k, k * k) for k in range(number * 40, number * 40 + 200))


class Stored(NamedTuple):
    """A file to be stored in an archive. `mode` is that of Unix; `crc` replaces the right checksum if it is given."""

    name: str
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    crc: int | None = None
    encrypted: bool = False


def folder(name: str) -> Stored:
    return Stored(name, mode=stat.S_IFDIR | 0o755)


def rar4(*members: Stored, volume: bool = False, headers_encrypted: bool = False, end: bool = True) -> bytes:
    """An archive of version 4 with `members`. Names are written in the form of RAR, also those that are not ASCII."""
    out = b"Rar!\x1a\x07\0" + block4(0x73, volume | headers_encrypted << 7, b"\0" * 6)
    for member in members:
        name = member.name.replace("/", "\\").encode()
        flags = 0x8000 | (0xE0 if stat.S_ISDIR(member.mode) else 0) | member.encrypted << 2
        if not member.name.isascii():
            flags |= 0x200
            plain = member.name.replace("/", "\\").encode("ascii", errors="replace")
            name = plain + b"\0" + _unicode_name(member.name.replace("/", "\\"))
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        body = struct.pack(
            "<IIBIIBBHI", len(member.data), len(member.data), 3, crc, 0x5A6B7C8D, 20, 0x30, len(name), member.mode
        )
        out += block4(0x74, flags, body + name) + member.data
    return out + (block4(0x7B, 0x4000, b"") if end else b"")


def rar5(*members: Stored, volume: bool = False, headers_encrypted: bool = False, end: bool = True) -> bytes:
    """An archive of version 5 with `members`."""
    out = b"Rar!\x1a\x07\1\0"
    if headers_encrypted:
        out += _block5(4, _number(0) * 3 + b"\0" * 17)
    out += _block5(1, _number(int(volume)))
    for member in members:
        is_folder, is_link = stat.S_ISDIR(member.mode), stat.S_ISLNK(member.mode)
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        name = member.name.encode()
        body = _number(1 if is_folder else 4) + _number(len(member.data)) + _number(member.mode)
        body += b"" if is_folder else struct.pack("<I", crc)
        body += _number(0) + _number(1) + _number(len(name)) + name
        extra = b""
        if is_link:
            extra = _record(5, _number(1) + _number(0) + _number(len(member.data)) + member.data)
        if member.encrypted:
            extra += _record(1, _number(0) * 2 + b"\x0f" + b"\0" * 32)
        out += _block5(2, body, extra, b"" if is_link else member.data)
    return out + (_block5(5, _number(0)) if end else b"")


def block4(kind: int, flags: int, body: bytes) -> bytes:
    """A header of version 4 with its checksum."""
    rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest


def _unicode_name(name: str) -> bytes:
    """A name in the form of RAR 4 for names beyond ASCII: two bytes a character, a byte of flags before every four."""
    units = name.encode("utf-16-le")
    out = b"\0"
    for at in range(0, len(units), 8):
        out += b"\xaa" + units[at : at + 8]
    return out


def _block5(kind: int, body: bytes, extra: bytes = b"", data: bytes = b"") -> bytes:
    flags = (1 if extra else 0) | (2 if kind == 2 else 0)  # a file's data may be empty, but is never left out
    rest = _number(kind) + _number(flags)
    rest += (_number(len(extra)) if extra else b"") + (_number(len(data)) if kind == 2 else b"")
    rest += body + extra
    header = _number(len(rest)) + rest
    return struct.pack("<I", zlib.crc32(header)) + header + data


def _record(kind: int, body: bytes) -> bytes:
    return _number(len(_number(kind) + body)) + _number(kind) + body


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

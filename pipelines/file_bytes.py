"""FileBytes: the bytes of a file of any size, read in windows, so that memory stays small."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

_WINDOW = 4 << 20  # bytes that are held at once


@lru_cache(maxsize=1 << 16)
def checksum_of(path: str, mtime_ns: int) -> str:
    """The CRC-32 of the file at `path`, 8 hexadecimal digits; computed anew when the time of its last change differs.

    Raises OSError if the file can't be read.
    """
    with FileBytes(path) as file:
        return file.checksum()


def read_exactly(descriptor: int, length: int, at: int) -> bytes:
    """The `length` bytes of an open file from offset `at` on. Raises EOFError if the file ends before that."""
    data = os.pread(descriptor, length, at)
    while len(data) < length:  # a signal, or more than the 2 GiB that one call gives
        more = os.pread(descriptor, length - len(data), at + len(data))
        if not more:
            raise EOFError
        data += more
    return data


class FileBytes:
    """The bytes of the file at `path`. It holds at most a window of them, so reading forwards is fast."""

    def __init__(self, path: str | Path) -> None:
        """Open the file. Raises OSError if it can't be read."""
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size
        self._at, self._held = 0, b""

    def read(self, at: int, length: int) -> memoryview:
        """The `length` bytes from offset `at` on; fewer where the file ends, none for an offset outside it."""
        if at < 0 or length <= 0:
            return memoryview(b"")
        if not self._at <= at <= at + length <= self._at + len(self._held):
            # Not more than there is: Python would allocate it all the same.
            wanted = min(max(length, _WINDOW), max(0, self.size - at))
            self._at, self._held = at, os.pread(self._descriptor, wanted, at)
            if length > _WINDOW:
                found, self._held = self._held, b""
                return memoryview(found)
        begin = at - self._at
        return memoryview(self._held)[begin : begin + length]

    def windows(self, overlap: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The whole file as (offset, uint8 [bytes]) of windows; each has the first `overlap` bytes of the next one."""
        for at in range(0, self.size, _WINDOW):
            data = self.read(at, min(_WINDOW + overlap, self.size - at))
            yield at, np.frombuffer(data, np.uint8)

    def checksum(self) -> str:
        """The CRC-32 of the whole file, 8 hexadecimal digits."""
        value = 0
        for _, data in self.windows(overlap=0):
            value = zlib.crc32(data.data, value)
        return f"{value:08x}"

    @staticmethod
    def window_of(offset: NDArray[np.int64]) -> NDArray[np.int64]:
        """The offset of the window of `windows` in which each of the bytes at `offset` lies."""
        return offset // _WINDOW * _WINDOW

    def __enter__(self) -> FileBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._held = b""

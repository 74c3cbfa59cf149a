"""HeaderBytes: reads a few bytes anywhere in a file that may be far larger than memory."""

from __future__ import annotations

import os
from types import TracebackType

# After this many reads a file is given up, so that a hostile one costs a second or two. A film of two hours with
# sound has about as many packets.
MOST_READS = 500_000
_MOST_BYTES = 1 << 24  # of one read; the longest table in a header, of a fragment of 1,000,000 samples, has 16 MB


class EndlessHeadersError(Exception):
    """The headers of a file do not end within MOST_READS reads."""


class HeaderBytes:
    """The bytes of the file at `path`, and its `size` when it was opened.

    Opening and reading raise OSError if the file can't be read, and EndlessHeadersError after MOST_READS reads.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        self._reads = 0

    def __enter__(self) -> HeaderBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on; fewer where the file ends before them, and 16 MB at most."""
        self._reads += 1
        if self._reads > MOST_READS:
            raise EndlessHeadersError
        if not 0 <= offset < self.size:
            return b""
        return os.pread(self._file, max(0, min(count, self.size - offset, _MOST_BYTES)), offset)

    def little(self, offset: int, count: int) -> int:
        """The little-endian unsigned integer of `count` bytes at `offset`; 0 past the end."""
        return int.from_bytes(self.at(offset, count), "little")

    def big(self, offset: int, count: int) -> int:
        """The big-endian unsigned integer of `count` bytes at `offset`; 0 past the end."""
        return int.from_bytes(self.at(offset, count), "big")

"""Arena: the memory that the loader and its workers share. A worker writes a clip into a slot, DALI reads it there.

The memory is an anonymous file, so it does not count against /dev/shm, which has 64 MB in a container by default. Every
slot is as large as the largest possible clip, but only bytes that were written take memory, and the memory of a large
clip is given back after use.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem

_KEPT_BYTES = 16 * 2**20  # a slot keeps this much memory; more, for a very large clip, is given back after use
_log = logging.getLogger(__name__)


class Arena:
    """Shared memory of `slots` slots with at least `slot_bytes` bytes each, and a number, the generation.

    Tasks carry the generation in which they were given out. The loader raises it to cancel all tasks of the old one.
    """

    def __init__(self, slots: int, slot_bytes: int, descriptor: int | None = None) -> None:
        """A new arena, or the one of another process, given by its file `descriptor` and the same numbers.

        Raises EnvironmentProblem if the system does not give that much memory.
        """
        self.slots = slots
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        size = mmap.PAGESIZE + self.slots * self.slot_bytes  # the first page holds the generation
        try:
            self.descriptor = _memory_file(size) if descriptor is None else descriptor
            self._map = mmap.mmap(self.descriptor, size)
        except (OSError, ValueError, OverflowError) as error:
            raise EnvironmentProblem(
                f"no shared memory for {slots} clips of up to {self.slot_bytes / 2**20:.1f} MiB ({error}); choose a "
                "smaller loader.batch_size or loader.prefetch, or leave out the videos with the largest frames: "
                "r3d-fast data index --max-pixels"
            ) from error
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._generation = self._bytes[:8].view(np.int64)

    @property
    def generation(self) -> int:
        """The generation of the tasks that count. Workers skip tasks of an older one."""
        return int(self._generation[0])

    @generation.setter
    def generation(self, value: int) -> None:
        self._generation[0] = value

    def slot(self, number: int) -> NDArray[np.uint8]:
        """The bytes of slot `number`, uint8 [slot_bytes], as a view."""
        begin = mmap.PAGESIZE + number * self.slot_bytes
        return self._bytes[begin : begin + self.slot_bytes]

    def trim(self, number: int, used: int) -> None:
        """Give memory of slot `number` back to the system, if its clip of `used` bytes was a very large one."""
        if used > _KEPT_BYTES:
            begin = mmap.PAGESIZE + number * self.slot_bytes
            self._map.madvise(mmap.MADV_REMOVE, begin + _KEPT_BYTES, self.slot_bytes - _KEPT_BYTES)

    def close(self) -> None:
        """Close the memory in this process. It is freed once no view of it is held any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _memory_file(size: int) -> int:
    try:
        descriptor = os.memfd_create("r3d-fast clips")
    except OSError as error:  # some sandboxes forbid this call
        _log.warning(
            "no anonymous memory file (%s): clips are shared through a file in %s", error, tempfile.gettempdir()
        )
        with tempfile.TemporaryFile(prefix="r3d-fast-") as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor

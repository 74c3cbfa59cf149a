"""Memory that the loader and its workers share: slots of equal size, written once by a worker, read in place by DALI.

An anonymous memory file, so that the size of /dev/shm, 64 MB in a container by default, does not matter. Slots are as
large as the largest clip could be, but only what is written takes memory, and what a large clip took is given back.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem

_KEPT_BYTES = 16 * 2**20  # what a slot used beyond this is given back after use: one huge clip must not fill all slots
_log = logging.getLogger(__name__)


class Arena:
    """`slots` slots of at least `slot_bytes` bytes each, and a number that tells stale tasks from live ones."""

    def __init__(self, slots: int, slot_bytes: int, descriptor: int | None = None) -> None:
        """A new arena, or with `descriptor` the one that another process made with the same figures.

        Raises EnvironmentProblem where the system gives no such memory.
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
                "smaller loader.batch_size or loader.prefetch"
            ) from error
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._generation = self._bytes[:8].view(np.int64)

    @property
    def generation(self) -> int:
        """Tasks of an older generation are not wanted any more."""
        return int(self._generation[0])

    @generation.setter
    def generation(self, value: int) -> None:
        self._generation[0] = value

    def slot(self, number: int) -> NDArray[np.uint8]:
        """The bytes of a slot, uint8 [slot_bytes]: a view."""
        begin = mmap.PAGESIZE + number * self.slot_bytes
        return self._bytes[begin : begin + self.slot_bytes]

    def trim(self, number: int, used: int) -> None:
        """Give back what a clip of `used` bytes took of the slot beyond the usual."""
        if used > _KEPT_BYTES:
            begin = mmap.PAGESIZE + number * self.slot_bytes
            self._map.madvise(mmap.MADV_REMOVE, begin + _KEPT_BYTES, self.slot_bytes - _KEPT_BYTES)

    def close(self) -> None:
        """Give up this process's hold; views that are still held keep the memory alive."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _memory_file(size: int) -> int:
    try:
        descriptor = os.memfd_create("r3d-fast clips")
    except OSError as error:  # some sandboxes forbid it
        _log.warning(
            "no anonymous memory file (%s): clips are shared through a file in %s", error, tempfile.gettempdir()
        )
        with tempfile.TemporaryFile(prefix="r3d-fast-") as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor

"""Copies the values of tensors at one moment, so that a checkpoint can be written while training continues."""

from __future__ import annotations

import mmap
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.backend.memory import is_out_of_memory
from r3d_fast.backend.paddle import record_event

Arrays = dict[str, NDArray[Any]]
_OWN_PAGES = 2**16  # bytes; an array of at least so many gets pages of its own
_WAIT = 0.002  # seconds between two checks whether the GPU has made the copy


class DeviceCopy:
    """A copy of the present values of `tensor`, on the same GPU. The host does not wait for it.

    `shape` and `dtype` are those of a NumPy array; `numpy()` fetches the values, in any thread.
    """

    def __init__(self, tensor: Any) -> None:
        self._copy = tensor.detach().clone()
        self._made = record_event()
        self.shape = tuple(tensor.shape)
        self.dtype = np.dtype(str(tensor.dtype).rpartition(".")[2])
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def numpy(self) -> NDArray[Any]:
        """Wait until the GPU has made the copy, and return its values."""
        while not self._made.query():
            time.sleep(_WAIT)
        return np.ascontiguousarray(self._copy.numpy())


def snapshot(tensor: Any) -> Any:
    """A copy of the present values of `tensor`: a NumPy array, or a DeviceCopy if it is on a GPU with enough memory.

    Copies on the GPU take less than a millisecond. Fetching all weights and moments takes as long as one or more
    training steps.
    """
    if tensor.place.is_gpu_place():
        try:
            return DeviceCopy(tensor)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    return _apart(tensor.numpy())


def _apart(array: NDArray[Any]) -> NDArray[Any]:
    """`array` contiguous, in memory that goes back to the system as soon as it is freed.

    A snapshot lives while a checkpoint is written, as long as many steps of training. In memory of malloc it would
    leave holes between the tensors of these steps, which fit no later tensor: each checkpoint would take more memory.
    """
    if array.nbytes < _OWN_PAGES:
        return np.ascontiguousarray(array)
    copy: NDArray[Any] = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def as_arrays(tensors: Mapping[str, Any]) -> Arrays:
    """The `snapshot` of each tensor, by name."""
    return {name: snapshot(tensor) for name, tensor in tensors.items()}

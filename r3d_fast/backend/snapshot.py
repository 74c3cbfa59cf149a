"""What tensors hold at one moment, so that training may go on and a checkpoint of that moment be written meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.backend.memory import is_out_of_memory
from r3d_fast.backend.paddle import record_event

Arrays = dict[str, NDArray[Any]]
_WAIT = 0.002  # seconds between two looks at whether the GPU has come so far


class DeviceCopy:
    """A copy, on the GPU where it lies, of what `tensor` holds now. Making it waits for nothing.

    `shape`, `dtype` as a NumPy array has them; `numpy()` fetches it, from any thread.
    """

    def __init__(self, tensor: Any) -> None:
        self._copy = tensor.detach().clone()
        self._made = record_event()
        self.shape = tuple(tensor.shape)
        self.dtype = np.dtype(str(tensor.dtype).rpartition(".")[2])
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def numpy(self) -> NDArray[Any]:
        """The values, once the GPU has made the copy."""
        while not self._made.query():
            time.sleep(_WAIT)
        return np.ascontiguousarray(self._copy.numpy())


def snapshot(tensor: Any) -> Any:
    """What `tensor` holds now: a NumPy array of its own, or of a tensor on a GPU a DeviceCopy, if it has the memory.

    Fetching all weights and moments would take one or more steps of a GPU; copies there take less than a millisecond.
    """
    if tensor.place.is_gpu_place():
        try:
            return DeviceCopy(tensor)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    return np.ascontiguousarray(tensor.numpy())


def as_arrays(tensors: Mapping[str, Any]) -> Arrays:
    """The `snapshot` of each of Paddle's tensors, by name."""
    return {name: snapshot(tensor) for name, tensor in tensors.items()}

"""Writes tensors in the safetensors format, and plain bytes, to an open file; returns their size and SHA-256.

The safetensors library reads these files. Its own writer is not used: it makes two more copies of all arrays and holds
Python's global lock meanwhile. This one copies nothing, and training goes on while it writes and hashes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# https://github.com/huggingface/safetensors, section Format
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
_PIECE = 1 << 22  # bytes hashed and written at once


def write_tensors(
    file: BinaryIO, arrays: Mapping[str, Any], about: Mapping[str, str], pace: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Write `arrays` (NumPy, or copies on a GPU) and the metadata `about` to `file`; returns {bytes, sha256} of it.

    `pace` is called after each piece of the work, with the seconds that it took. Raises OSError where the disk refuses.
    """
    # Arrays with the largest items come first, so that every array is aligned.
    names = sorted(arrays, key=lambda name: (-np.dtype(arrays[name].dtype).itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name in names:
        shape, dtype = arrays[name].shape, np.dtype(arrays[name].dtype)
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)

    def parts() -> Iterable[memoryview]:
        yield memoryview(len(text).to_bytes(8, "little") + text)
        for name in names:
            yield _fetch(arrays[name])

    return _write(file, parts(), pace)


def write_bytes(file: BinaryIO, content: bytes) -> dict[str, Any]:
    """Write `content` to `file`; returns {bytes, sha256} of it. Raises OSError where the disk refuses."""
    return _write(file, [memoryview(content)])


def _fetch(array: Any) -> memoryview:
    """The bytes of an array, copied from the GPU first if it is there."""
    if not isinstance(array, np.ndarray):
        array = array.numpy()
    flat: NDArray[np.uint8] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.data


def _write(file: BinaryIO, parts: Iterable[memoryview], pace: Callable[[float], None] | None = None) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    start = time.monotonic()
    for part in parts:
        for first in range(0, len(part), _PIECE):
            piece = part[first : first + _PIECE]
            digest.update(piece)
            size += len(piece)
            while piece:
                piece = piece[file.write(piece) :]
            if pace is not None:
                pace(time.monotonic() - start)
                start = time.monotonic()
    return {"bytes": size, "sha256": digest.hexdigest()}

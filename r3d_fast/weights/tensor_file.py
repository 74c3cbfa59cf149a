"""Writes tensors in the safetensors format, and plain bytes, to an open file; returns their size and SHA-256.

The safetensors library reads these files. Its own writer is not used: it makes two more copies of all arrays and holds
Python's global lock meanwhile. This one copies nothing, and training goes on while it writes and hashes.
`tensor_reader.py` reads them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# https://github.com/huggingface/safetensors, section Format
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
PIECE = 1 << 22  # bytes hashed and written or read at once
Pace = Callable[[float], None]  # called after each piece of the work, with the seconds that it took


def write_tensors(
    file: BinaryIO, arrays: Mapping[str, Any], about: Mapping[str, str], pace: Pace | None = None
) -> dict[str, Any]:
    """Write `arrays` (NumPy, or copies on a GPU) and the metadata `about` to `file`; returns {bytes, sha256} of it.

    Raises OSError where the disk refuses.
    """
    # Arrays with the largest items come first, so that every array is aligned.
    names = sorted(arrays, key=lambda name: (-np.dtype(arrays[name].dtype).itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name in names:
        shape, dtype = arrays[name].shape, np.dtype(arrays[name].dtype)
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype.name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)

    def parts() -> Iterable[memoryview]:
        yield memoryview(len(text).to_bytes(8, "little") + text)
        for name in names:
            yield bytes_of(arrays[name])

    return _write(file, parts(), pace)


def write_bytes(file: BinaryIO, content: bytes) -> dict[str, Any]:
    """Write `content` to `file`; returns {bytes, sha256} of it. Raises OSError where the disk refuses."""
    return _write(file, [memoryview(content)])


def tensors_digest(arrays: Mapping[str, Any], pace: Pace | None = None) -> str:
    """SHA-256 of the names and values of `arrays` (NumPy, or copies on a GPU), in hexadecimal digits."""
    digest = hashlib.sha256()
    parts = (part for name in sorted(arrays) for part in (memoryview(name.encode()), bytes_of(arrays[name])))
    for piece in _pieces(parts, pace):
        digest.update(piece)
    return digest.hexdigest()


def bytes_of(array: Any) -> memoryview:
    """The bytes of an array, copied from the GPU first if it is there."""
    if not isinstance(array, np.ndarray):
        array = array.numpy()
    flat: NDArray[np.uint8] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.data


def _write(file: BinaryIO, parts: Iterable[memoryview], pace: Pace | None = None) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(parts, pace):
        digest.update(piece)
        size += len(piece)
        rest = piece
        while rest:
            rest = rest[file.write(rest) :]
    return {"bytes": size, "sha256": digest.hexdigest()}


def _pieces(parts: Iterable[memoryview], pace: Pace | None) -> Iterator[memoryview]:
    """The bytes of `parts` in pieces; `pace` is called each time the caller has done its work with one."""
    start = time.monotonic()
    for part in parts:
        for first in range(0, len(part), PIECE):
            yield part[first : first + PIECE]
            if pace is not None:
                pace(time.monotonic() - start)
                start = time.monotonic()

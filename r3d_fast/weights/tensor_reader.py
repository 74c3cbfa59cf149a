"""Reads safetensors files: every number in the header is checked against the file before memory is set aside for it.

What is read here, the safetensors library reads in the same way. This reader takes less: only dtypes that NumPy has and
this project writes, a smaller header, and no name twice. It reads and hashes in one pass, so that what was checked is
what is used, and makes no second copy of the arrays.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem
from pipelines.input.regular_files import open_regular
from pipelines.machine.memory import free_memory
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.config.yaml_files import shown
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.tensor_file import DTYPES, PIECE

MOST_HEADER_BYTES = 16 << 20  # the largest network here has 1,600 tensors, whose header takes 250 kB
MOST_AXES = 8  # of an array; a 3D convolution has 5
LONGEST_SIDE = 2**31 - 1  # of an array; Paddle counts with 32 bits
_ALWAYS_TAKEN = 1 << 28  # bytes of tensors that are read without asking how much memory is free
_TYPES = {code: np.dtype(name) for name, code in DTYPES.items()}


class FileProof(NamedTuple):
    """The size in bytes and the SHA-256 that a file has to have."""

    bytes: int
    sha256: str


class _Entry(NamedTuple):
    """An array in the file: its dtype, its shape, and where its bytes begin and end behind the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path, proof: FileProof | None = None) -> tuple[Arrays, dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file.

    Raises CheckpointError where it can't be read, where its header does not describe it byte for byte, and where it
    differs from `proof`; EnvironmentProblem where its arrays don't fit into the free memory.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if proof is not None:
                require_size(path, size, proof)
            digest = hashlib.sha256()
            header = _read_header(file, size, digest)
            about = _metadata(header.pop("__metadata__", {}))
            entries = _entries(header, size - file.tell())
            require_memory(path, size)
            arrays = {name: _read_array(file, entry, digest) for name, entry in entries.items()}
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        what = "another file" if proof is None else "an earlier checkpoint"
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason}); use {what}") from error
    if proof is not None:
        require_digest(path, digest.hexdigest(), proof)
    return arrays, about


def require_size(path: Path, size: int, proof: FileProof) -> None:
    """Raise CheckpointError unless the file at `path`, of `size` bytes, has the size that `proof` says."""
    if size != proof.bytes:
        raise CheckpointError(
            f"{path}: {size} bytes, the manifest says {proof.bytes}: cut short; use an earlier checkpoint"
        )


def require_digest(path: Path, sha256: str, proof: FileProof) -> None:
    """Raise CheckpointError unless `sha256`, that of the file at `path`, is the one that `proof` says."""
    if sha256 != proof.sha256:
        raise CheckpointError(f"{path}: SHA-256 differs from the manifest: damaged on disk; use an earlier checkpoint")


def _read_header(file: io.BufferedReader, size: int, digest: Any) -> dict[str, Any]:
    """The header of a file of `size` bytes, which its first 8 bytes say the length of. Raises ValueError."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}: cut short, or no safetensors")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes; expected at most {MOST_HEADER_BYTES}")
    text = file.read(length)
    digest.update(start + text)
    if not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    header: dict[str, Any] = json.loads(
        text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_int=_whole_number, parse_constant=_no_number
    )
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in its header")
    for name in found:
        name.encode()  # a UnicodeError, which is a ValueError, for half of a surrogate pair
    return found


def _whole_number(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise ValueError(f"{shown(text)} in its header; expected a number from 0 on, of 63 bits")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} in its header, which is no JSON")


def _metadata(values: Any) -> dict[str, str]:
    """`values` if they are texts by names. Raises ValueError."""
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError("metadata that are no texts by names")
    for value in values.values():
        value.encode()
    return values


def _entries(header: Mapping[str, Any], size: int) -> dict[str, _Entry]:
    """The arrays that `header` describes, in the order in which they lie in the `size` bytes behind it.

    Raises ValueError unless they fill these bytes exactly.
    """
    found = {name: _entry(name, values, size) for name, values in header.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    at = 0
    for name, entry in ordered.items():
        if entry.begin != at:
            raise ValueError(f"{shown(name)} begins at byte {entry.begin}, the array before it ends at {at}")
        at = entry.end
    if at != size:
        raise ValueError(f"{size} bytes of tensors, its header says {at}: cut short, or with more behind them")
    return ordered


def _entry(name: str, values: Any, size: int) -> _Entry:
    """The array called `name`, described by `values`, in a file with `size` bytes of them. Raises ValueError."""
    if not isinstance(values, dict) or values.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is not described by dtype, shape and data_offsets")
    code, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    dtype = _TYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise ValueError(f"{shown(name)} is of dtype {shown(code)}; expected one of {', '.join(_TYPES)}")
    if not _are_numbers(shape, LONGEST_SIDE) or len(shape) > MOST_AXES:
        raise ValueError(
            f"{shown(name)} has shape {shown(shape)}; expected at most {MOST_AXES} sides of at most {LONGEST_SIDE}"
        )
    if not _are_numbers(offsets, size) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{shown(name)} has data_offsets {shown(offsets)} in {size} bytes of tensors")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != offsets[1] - offsets[0]:
        raise ValueError(f"{shown(name)}, {dtype} {shape}, takes {nbytes} bytes, but has {offsets[1] - offsets[0]}")
    return _Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_numbers(values: Any, most: int) -> bool:
    """Whether `values` is a list of whole numbers from 0 to `most`."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= most for value in values)


def require_memory(path: Path, size: int) -> None:
    """Raise EnvironmentProblem where the tensors in `path`, of `size` bytes, don't fit into the free memory."""
    if size > _ALWAYS_TAKEN and size > (free := free_memory()).bytes:
        raise EnvironmentProblem(
            f"{path}: {size} bytes of tensors, {free.bytes} bytes of memory are free ({free.limit}); free some, or use "
            "a smaller model"
        )


def _read_array(file: io.BufferedReader, entry: _Entry, digest: Any) -> NDArray[Any]:
    """The array of `entry`, read from where `file` stands. Raises ValueError where the file has become shorter."""
    array: NDArray[Any] = np.empty(entry.shape, entry.dtype)
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = file.readinto(rest[:PIECE])
        if not count:
            raise ValueError("it became shorter while it was read")
        digest.update(rest[:count])
        rest = rest[count:]
    return array

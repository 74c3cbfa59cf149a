"""Reads weights files of other projects: float32 tensors by the names that they have there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pdparams import read_pdparams
from r3d_fast.weights.foreign.torch_file import MOST_TIMES, is_torch_file, read_torch
from r3d_fast.weights.stored_model import require_finite

_TORCH_NAMES = {".pth", ".pt", ".tar", ".ckpt", ".bin"}
_STATES = ("state_dict", "model_state_dict", "model", "net")  # keys under which checkpoints keep their weights
_COUNTERS = "num_batches_tracked"  # of batch norms since PyTorch 0.4.1; the outputs don't depend on it


@dataclass(frozen=True)
class ForeignWeights:
    """The content of a weights file: float32 tensors by the file's own names, and its architecture if it names one.

    `beside`: the other keys of a checkpoint, beside its weights.
    """

    tensors: Arrays
    architecture: str | None
    beside: frozenset[str]


def is_foreign(path: Path) -> bool:
    """Whether `path` is a file that other projects write: a .pth or .pdparams, by its name or its content."""
    return path.is_file() and (path.suffix.lower() in {*_TORCH_NAMES, ".pdparams"} or is_torch_file(path))


def _is_pickle(path: Path) -> bool:
    """Whether the file begins like a pickle of protocol 2 or later, as paddle.save writes it; True if it's no file."""
    if not path.is_file():
        return True  # read_pdparams says what it is
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def read_foreign(path: Path) -> ForeignWeights:
    """The weights in `path`, a .pth or .pdparams, which are told apart by their content. No code of the file is run.

    Batch counters are left out; names keep a leading `module.`. Raises CheckpointError where the file holds anything
    but weights, or NaN or infinite numbers; UsageError where there is no file.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a .pth or .pdparams")
    if path.suffix == ".safetensors":
        raise UsageError(f"{path}: a .safetensors file is what import-weights writes; expected a .pth or .pdparams")
    is_torch = is_torch_file(path) or path.suffix.lower() in _TORCH_NAMES
    if not is_torch and path.suffix.lower() != ".pdparams" and not _is_pickle(path):
        raise CheckpointError(f"{path}: neither a .pth nor a .pdparams, by its name and its first bytes")
    content = read_torch(path) if is_torch else read_pdparams(path)
    state, beside = _state(content, path)
    _check_bytes(state.values(), path)
    weights = {name: _array(value, name, path) for name, value in state.items() if not name.endswith(_COUNTERS)}
    if not weights:
        raise CheckpointError(f"{path}: holds no tensors; expected the state dict of a network")
    require_finite(weights, str(path))
    architecture = beside.get("arch")
    return ForeignWeights(weights, architecture if isinstance(architecture, str) else None, frozenset(beside))


def _state(content: Any, path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """(state dict, what lies beside it): the state dict is all of `content`, or a part of a checkpoint."""
    beside: dict[str, Any] = {}
    if isinstance(content, dict):
        key = next((key for key in _STATES if isinstance(content.get(key), dict)), None)
        if key is not None:
            beside = {str(other): value for other, value in content.items() if other != key}
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; expected a state dict, or a checkpoint with a state_dict in it"
        )
    return content, beside


def _check_bytes(values: Iterable[Any], path: Path) -> None:
    """Raise CheckpointError where arrays have many times the bytes of the file: one of them may have many names."""
    nbytes = sum(array.nbytes for array in map(_without_name, values) if isinstance(array, np.ndarray))
    if nbytes > MOST_TIMES * path.stat().st_size:
        raise CheckpointError(f"{path}: {nbytes} bytes of tensors in a file of {path.stat().st_size}; expected no more")


def _without_name(value: Any) -> Any:
    """`value` without its name: Paddle stores (name inside the graph, array)."""
    is_named = isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str)
    return value[1] if is_named else value


def _array(value: Any, name: str, path: Path) -> NDArray[np.float32]:
    """`value`, the tensor called `name` in `path`, as float32. Raises CheckpointError unless it is a float tensor."""
    value = _without_name(value)
    if not isinstance(value, np.ndarray) or (value.dtype.kind != "f" and value.dtype != np.uint16):
        what = f"of {value.dtype}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
        raise CheckpointError(f"{path}: {name[:100]!r} is {what}; expected a state dict of float tensors only")
    if value.dtype == np.uint16:  # Paddle stores bfloat16 like this: the upper half of a float32
        value = (value.astype(np.uint32) << 16).view(np.float32)
    array: NDArray[np.float32] = np.ascontiguousarray(value, dtype=np.float32)
    return array

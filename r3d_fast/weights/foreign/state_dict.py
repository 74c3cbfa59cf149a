"""Reads weights files of other projects: float32 tensors by the names that they have there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pdparams import read_pdparams
from r3d_fast.weights.foreign.torch_file import is_torch_file, read_torch
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


def read_foreign(path: Path) -> ForeignWeights:
    """The weights in `path`, a .pth or .pdparams, which are told apart by their content. No code of the file is run.

    Batch counters are left out; names keep a leading `module.`. Raises CheckpointError where the file holds anything
    but weights, or NaN or infinite numbers; UsageError where there is no file; EnvironmentProblem where a .pth needs
    PyTorch.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a .pth or .pdparams")
    if path.suffix == ".safetensors":
        raise UsageError(f"{path}: a .safetensors file is what import-weights writes; expected a .pth or .pdparams")
    is_torch = is_torch_file(path) or path.suffix.lower() in _TORCH_NAMES
    content = read_torch(path) if is_torch else read_pdparams(path)
    state, beside = _state(content, path)
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


def _array(value: Any, name: str, path: Path) -> NDArray[np.float32]:
    """`value`, the tensor called `name` in `path`, as float32. Raises CheckpointError unless it is a float tensor."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]  # Paddle stores (name inside the graph, array)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fu":
        what = f"of {value.dtype}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
        raise CheckpointError(f"{path}: {name[:100]!r} is {what}; expected a state dict of float tensors only")
    if value.dtype == np.uint16:  # Paddle stores bfloat16 like this: the upper half of a float32
        value = (value.astype(np.uint32) << 16).view(np.float32)
    array: NDArray[np.float32] = np.ascontiguousarray(value, dtype=np.float32)
    return array

"""Reads files that `paddle.save` wrote, as NumPy arrays in plain containers, without running any code in them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np

from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pickle_limits import Forbidden, printable, whole_numbers
from r3d_fast.weights.foreign.pickle_reader import PickleReader
from r3d_fast.weights.tensor_reader import require_memory

# Keys that Paddle adds to those of the tensors: names inside its graph, and how tensors above 1 GiB were split.
_NAMES, _PARTS = "StructuredToParameterName@@", "UnpackBigParamInfor@@"


def read_pdparams(path: Path) -> Any:
    """The content of `path`: arrays, numbers and texts in dicts, lists and tuples (sets become lists).

    A tensor is an array, or a tuple (its name inside Paddle, array). Tensors that Paddle had split are joined again. No
    code of the file is run. Raises CheckpointError where it holds anything else, is cut short or is not a pickle;
    EnvironmentProblem where it is larger than the free memory.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path}: not a file; expected a .pdparams that paddle.save wrote")
        require_memory(path, path.stat().st_size)
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    try:
        return _joined(PickleReader(len(raw)).read(raw), len(raw))
    except Forbidden as error:
        raise CheckpointError(
            f"{path}: refused, nothing of it was run: it holds {printable(error)}; expected NumPy arrays in plain "
            "containers, as paddle.save writes a state dict"
        ) from error
    except Exception as error:  # damaged bytes may lead to any error
        raise CheckpointError(
            f"{path}: not a whole .pdparams ({printable(error)}); it may be cut short or another kind of file: "
            "download it again"
        ) from error


def _joined(content: Any, size: int) -> Any:
    """`content` without Paddle's extra keys, and with tensors that were split joined again.

    Raises ValueError where they get more bytes than the file has, `size`: one part may have many names.
    """
    if not isinstance(content, dict):
        return content
    for key, about in content.get(_PARTS, {}).items():
        names = about["slices"]
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"no names of the parts of {key}")
        parts = [content.pop(name) for name in names]
        size -= sum(part.nbytes for part in parts)
        if size < 0:
            raise ValueError(f"parts of {key} with more numbers than the file")
        content[key] = np.concatenate(parts).reshape(whole_numbers(about["OriginShape"]))
    return {key: value for key, value in content.items() if key not in (_NAMES, _PARTS)}

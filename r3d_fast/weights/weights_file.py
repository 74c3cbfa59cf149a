"""The .safetensors file of a model: its weights, the description of the model, and digests that prove both.

A copy of such a file, away from the manifest of its checkpoint, still shows any damage: the description has the SHA-256
of the tensors, and beside it stands its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from r3d_fast.backend.snapshot import Arrays
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.tensor_file import Pace, tensors_digest, write_tensors
from r3d_fast.weights.tensor_reader import FileProof, read_tensors

_DESCRIPTION, _ITS_DIGEST = "r3d_fast", "r3d_fast_sha256"  # keys of the metadata
_TENSORS_DIGEST = "tensors_sha256"  # key of the description


def write_weights_file(
    file: BinaryIO, weights: Mapping[str, Any], description: Mapping[str, Any], pace: Pace | None = None
) -> dict[str, Any]:
    """Write `weights` (NumPy, or copies on a GPU) and `description` to `file`; returns {bytes, sha256} of it.

    Raises OSError where the disk refuses.
    """
    text = json.dumps({**description, _TENSORS_DIGEST: tensors_digest(weights, pace)})
    return write_tensors(file, weights, {_DESCRIPTION: text, _ITS_DIGEST: _digest(text)}, pace)


def read_weights_file(path: Path, proof: FileProof | None = None) -> tuple[Arrays, dict[str, Any]]:
    """(weights, description) of the file at `path`; an empty description where it has none.

    Without `proof`, which covers the whole file, the digests in it are checked; files of older versions have none.
    Raises what read_tensors raises, and CheckpointError where one of the digests is another.
    """
    weights, about = read_tensors(path, proof)
    text = about.get(_DESCRIPTION)
    if text is None:
        return weights, {}
    if proof is None and about.get(_ITS_DIGEST, _digest(text)) != _digest(text):
        raise CheckpointError(
            f"{path}: the SHA-256 of its description is not the one stored in it: damaged on disk; copy it again"
        )
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        return weights, {}
    claimed = description.get(_TENSORS_DIGEST)
    if proof is None and claimed is not None and claimed != tensors_digest(weights):
        raise CheckpointError(
            f"{path}: the SHA-256 of its tensors is not the one stored in it: damaged on disk; copy or import it again"
        )
    return weights, description


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

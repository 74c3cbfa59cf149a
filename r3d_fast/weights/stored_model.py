"""A model and what belongs to it, out of a run, a checkpoint or one .safetensors file. Strict: every key has to fit."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import Precision, available_precision, choose_data_format
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.config.config import Config, DataFormat, config_from_json
from r3d_fast.config.sections import ModelSpec, TrainSpec
from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import build_model
from r3d_fast.weights.checkpoint import MANIFEST, find_weights, load_checkpoint, read_tensors


@dataclass(frozen=True)
class RestoredModel:
    """A model in evaluation mode, the config it was trained with, its classes, and the file it came from.

    `precision` is what it is to compute in here; the config's data format is the model's.
    """

    model: Any
    config: Config
    classes: tuple[str, ...]
    weights: Path
    precision: Precision

    @property
    def data_format(self) -> DataFormat:
        """How the model takes clips: channels first or last."""
        data_format = self.config.model.data_format
        assert data_format != "auto"
        return data_format


@dataclass(frozen=True)
class StoredWeights:
    """Weights float32 by the model's names, the config they were trained with, their classes and their file."""

    weights: Arrays
    config: Config
    classes: tuple[str, ...]
    file: Path


def read_weights(path: Path) -> StoredWeights:
    """The weights that `path` means (a run, a checkpoint, a .safetensors file), and what they say of themselves.

    Raises UsageError where there are none, CheckpointError where they are damaged or not numbers.
    """
    file = find_weights(path)
    if (file.parent / MANIFEST).is_file():
        load_checkpoint(file.parent)  # a flipped byte would load silently
    weights, about = read_tensors(file)
    try:
        described = json.loads(about["r3d_fast"])
        config, classes = config_from_json(described["config"]), tuple(described["classes"])
    except (KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
        raise CheckpointError(
            f"{file}: does not say which model and classes it holds ({type(error).__name__}); expected the weights of "
            "an r3d-fast run, or what `r3d-fast import-weights` makes of others"
        ) from error
    claimed = described.get("tensors_sha256")
    if claimed is not None and claimed != tensors_digest(weights):
        raise CheckpointError(f"{file}: SHA-256 of its tensors is not what it says: damaged on disk; make it anew")
    require_finite(weights, str(file))
    return StoredWeights(weights, config, classes, file)


def tensors_digest(weights: Arrays) -> str:
    """SHA-256 of names and values: what proves a file that lies apart from any manifest."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()


def require_finite(weights: Arrays, source: str) -> None:
    """Raise CheckpointError that names the tensors of which a number is NaN or infinite."""
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise CheckpointError(
            f"{source}: NaN or infinite numbers in {', '.join(broken[:10])}{more}; the run that made them diverged, or "
            "the file is damaged: use other weights"
        )


def restore(
    path: Path, device: str = "cpu", *, train: TrainSpec | None = None,
    data_format: Literal["auto"] | DataFormat | None = None,
) -> RestoredModel:  # fmt: skip
    """The model that `path` means (a run, a checkpoint, a .safetensors file written by a run), for `device`.

    It computes in the precision that `train` asks for, in `data_format` (defaults: those of the run). Weights are
    float32 and fit all of them. A precision that `device` has not gives way to what it has, with a warning on stderr.
    Raises UsageError where there is none, CheckpointError where it is damaged or does not fit.
    """
    stored = read_weights(path)
    weights, trained, classes, file = stored.weights, stored.config, stored.classes, stored.file
    wanted = train or trained.train
    precision = available_precision(wanted.precision, device, wanted.amp_level)
    if wanted.precision not in ("auto", precision.name):
        print(
            f"warning: {file}: train.precision {wanted.precision} can't be had here, {precision} is used",
            file=sys.stderr,
        )
    trained = trained.in_data_format(choose_data_format(data_format or trained.model.data_format, precision, device))
    model = new_model(trained.model, len(classes), trained.train.seed)
    load_weights(model, weights, str(file))
    model.eval()
    return RestoredModel(model, trained, classes, file, precision)


def new_model(spec: ModelSpec, num_classes: int, seed: int = 0) -> Any:
    """An untrained model, its weights drawn under `seed`; channels come first where the data format is still auto."""
    import_paddle().seed(seed)
    return build_model(
        spec.name,
        num_classes=num_classes,
        shortcut=spec.shortcut,
        data_format="NCDHW" if spec.data_format == "auto" else spec.data_format,
        width=spec.width,
        dropout=spec.dropout,
    )


def load_weights(model: Any, weights: Arrays, source: str) -> None:
    """Copy `weights` into `model`. Raises CheckpointError that lists missing, unexpected and mis-shaped keys."""
    paddle = import_paddle()
    own = model.state_dict()
    problems = [f"missing {key}" for key in own if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in own]
    problems += [
        f"{key} is {list(weights[key].shape)}, the model has {list(tensor.shape)}"
        for key, tensor in own.items()
        if key in weights and list(weights[key].shape) != list(tensor.shape)
    ]
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(f"{source}: does not fit the model: {'; '.join(problems[:10])}{more}")
    for key, tensor in own.items():
        tensor.set_value(paddle.to_tensor(weights[key]))

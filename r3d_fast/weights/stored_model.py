"""Restores a model with its config and classes from a run, a checkpoint or a .safetensors file.

Every key of the weights has to fit the model: none may be missing, left over or of another shape.
"""

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
    """A model in evaluation mode, the config that it was trained with, its classes, and the file of its weights.

    `precision` is the one that it is to compute in on this machine; `config.model.data_format` is that of the model.
    """

    model: Any
    config: Config
    classes: tuple[str, ...]
    weights: Path
    precision: Precision

    @property
    def data_format(self) -> DataFormat:
        """The layout of the clips that the model takes: channels first or last."""
        data_format = self.config.model.data_format
        assert data_format != "auto"
        return data_format


@dataclass(frozen=True)
class StoredWeights:
    """Weights float32 by the names in the model, the config that they were trained with, their classes, their file.

    `trained_in` is (precision, data format) of the training, or None if the file does not say it.
    """

    weights: Arrays
    config: Config
    classes: tuple[str, ...]
    file: Path
    trained_in: tuple[str, DataFormat] | None = None


def read_weights(path: Path) -> StoredWeights:
    """The weights of a run, a checkpoint or a .safetensors file, with the config and the classes stored beside them.

    Raises UsageError where there are no weights, CheckpointError where they are damaged, NaN or infinite.
    """
    file, trained_in = find_weights(path), None
    if (file.parent / MANIFEST).is_file():
        # This checks the digests: without it a changed byte would not be noticed.
        state = load_checkpoint(file.parent).state
        if "layout" in state:
            trained_in = state["precision"], state["layout"]["data_format"]
    weights, about = read_tensors(file)
    try:
        described = json.loads(about["r3d_fast"])
        config, classes = config_from_json(described["config"]), tuple(described["classes"])
    except (KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
        raise CheckpointError(
            f"{file}: does not say which model and classes it holds ({type(error).__name__}); expected the weights of "
            "an r3d-fast run, or a file that `r3d-fast import-weights` wrote"
        ) from error
    claimed = described.get("tensors_sha256")
    if claimed is not None and claimed != tensors_digest(weights):
        raise CheckpointError(
            f"{file}: the SHA-256 of its tensors is not the one stored in it: damaged on disk; import the weights again"
        )
    require_finite(weights, str(file))
    return StoredWeights(weights, config, classes, file, trained_in)


def tensors_digest(weights: Arrays) -> str:
    """SHA-256 of the names and values of `weights`, for files that have no manifest."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()


def require_finite(weights: Arrays, source: str) -> None:
    """Raise CheckpointError, with the names of the tensors, if a number in `weights` is NaN or infinite."""
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise CheckpointError(
            f"{source}: NaN or infinite numbers in {', '.join(broken[:10])}{more}; the run that trained them diverged, "
            "or the file is damaged: use other weights"
        )


def restore(
    path: Path, device: str = "cpu", *, train: TrainSpec | None = None,
    data_format: Literal["auto"] | DataFormat | None = None,
) -> RestoredModel:  # fmt: skip
    """The model of a run, a checkpoint or a .safetensors file, ready to compute on `device`.

    It computes in the precision that `train` asks for and in `data_format` (defaults: those of the run). "auto" is the
    format that the run itself found for "auto" in this precision. The weights are float32 and fit every precision and
    format. Where `device` lacks the precision, another one is used, with a warning on stderr. Raises
    UsageError where there is no model, CheckpointError where it is damaged or does not fit.
    """
    stored = read_weights(path)
    weights, trained, classes, file = stored.weights, stored.config, stored.classes, stored.file
    wanted = train or trained.train
    precision = available_precision(wanted.precision, device, wanted.amp_level)
    if wanted.precision not in ("auto", precision.name):
        print(
            f"warning: {file}: train.precision {wanted.precision} is not available here; using {precision}",
            file=sys.stderr,
        )
    data_format = data_format or trained.model.data_format
    if data_format == trained.model.data_format == "auto" and stored.trained_in is not None:
        trained_precision, found = stored.trained_in
        data_format = found if trained_precision == str(precision) else "auto"
    trained = trained.in_data_format(choose_data_format(data_format, precision, device))
    model = new_model(trained.model, len(classes), trained.train.seed)
    load_weights(model, weights, str(file))
    model.eval()
    return RestoredModel(model, trained, classes, file, precision)


def new_model(spec: ModelSpec, num_classes: int, seed: int = 0) -> Any:
    """An untrained model with random weights from `seed`; with the data format "auto" it takes channels first."""
    import_paddle().seed(seed)
    return build_model(
        spec.name,
        num_classes=num_classes,
        shortcut=spec.shortcut,
        shortcut_gradient=spec.shortcut_gradient,
        conv1_t_size=spec.conv1_t_size,
        conv1_t_stride=spec.conv1_t_stride,
        max_pool=spec.max_pool,
        stem_factor=spec.stem_factor,
        data_format="NCDHW" if spec.data_format == "auto" else spec.data_format,
        width=spec.width,
        dropout=spec.dropout,
    )


def load_weights(model: Any, weights: Arrays, source: str) -> None:
    """Copy `weights` into `model`. Raises CheckpointError with the keys that are missing, unexpected or misshapen."""
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

"""Restores a model with its config and classes from a run, a checkpoint or a .safetensors file.

Every key of the weights has to fit the model: none may be missing, left over or of another shape.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.errors import UsageError
from r3d_fast.backend.paddle import import_paddle, weight_shapes
from r3d_fast.backend.precision import Precision, available_precision, choose_data_format
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.config.config import LAYOUT_OF, Config, DataFormat, config_from_json
from r3d_fast.config.sections import ModelSpec, TrainSpec
from r3d_fast.console import tell
from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import MODELS, build_model
from r3d_fast.models.cost_table import estimated_parameters
from r3d_fast.weights.checkpoint import MANIFEST, STATE, WEIGHTS, all_damaged, load_checkpoint, weights_places
from r3d_fast.weights.weights_file import read_weights_file

_ALWAYS_BUILT = 64 << 20  # bytes of weights: a network of that size is built to find out that its weights don't fit


@dataclass(frozen=True)
class RestoredModel:
    """A model in evaluation mode, the config that it was trained with, its classes, and the file of its weights.

    `precision` is the one that it is to compute in on this machine; `config.model.data_format` is that of the model.
    `clip_seconds` is how long the clips of its training were, in the median; None if the file does not say it.
    """

    model: Any
    config: Config
    classes: tuple[str, ...]
    weights: Path
    precision: Precision
    clip_seconds: float | None = None

    @property
    def data_format(self) -> DataFormat:
        """The layout of the clips that the model takes: channels first or last."""
        data_format = self.config.model.data_format
        assert data_format != "auto"
        return data_format


@dataclass(frozen=True)
class StoredWeights:
    """Weights float32 by the names in the model, the config that they were trained with, their classes, their file.

    `trained_in` is (precision, data format) of the training, `clip_seconds` how long its clips were, in the median;
    None if the file does not say it.
    """

    weights: Arrays
    config: Config
    classes: tuple[str, ...]
    file: Path
    trained_in: tuple[str, DataFormat] | None = None
    clip_seconds: float | None = None


def read_weights(path: Path) -> StoredWeights:
    """The weights of a run, a checkpoint or a .safetensors file, with the config and the classes stored beside them.

    Of a run they are its best ones; where those are damaged, the ones before them are used, which is said on stderr.
    Raises UsageError where there are no weights, CheckpointError where all are damaged, or are NaN or infinite.
    """
    places, complaints = weights_places(path), []
    for file in places:
        try:
            stored = _read(file)
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        if complaints:
            for complaint in complaints:
                tell(f"warning: {complaint}")
            tell(f"warning: {file.parent}: is not damaged, and is used instead")
        require_finite(stored.weights, str(stored.file))
        return stored
    raise CheckpointError(complaints[0]) if path in (places[0], places[0].parent) else all_damaged(path, complaints)


def _read(file: Path) -> StoredWeights:
    """The weights in `file`, and all that is stored beside them. Raises CheckpointError where anything is damaged."""
    trained_in = None
    described_by = any(os.path.lexists(file.parent / name) for name in (MANIFEST, STATE))
    if file.name == WEIGHTS and (described_by or not os.path.lexists(file)):  # else it is weights by themselves
        checkpoint = load_checkpoint(file.parent, with_optimizer=False)
        weights, described = checkpoint.weights, checkpoint.state
        trained_in = _trained_in(checkpoint.state)
    else:
        weights, described = read_weights_file(file)
    try:
        config, classes = config_from_json(described["config"]), tuple(described["classes"])
        seconds = described.get("clip_seconds")  # older weights and imported ones have none
        if seconds is not None and not 0 < float(seconds) < float("inf"):
            raise ValueError("clip_seconds")
        if not all(isinstance(name, str) for name in classes):
            raise TypeError("classes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: does not say which model and classes it holds ({type(error).__name__}); expected the weights of "
            "an r3d-fast run, or a file that `r3d-fast import-weights` wrote"
        ) from error
    return StoredWeights(weights, config, classes, file, trained_in, seconds)


def _trained_in(state: dict[str, Any]) -> tuple[str, DataFormat] | None:
    """(precision, data format) of the training whose checkpoint has `state`; None if it does not say both."""
    data_format = state.get("layout", {}).get("data_format")
    if "precision" not in state or data_format not in LAYOUT_OF:
        return None
    return state["precision"], data_format


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
        tell(f"warning: {file}: train.precision {wanted.precision} is not available here; using {precision}")
    data_format = data_format or trained.model.data_format
    if data_format == trained.model.data_format == "auto" and stored.trained_in is not None:
        trained_precision, found = stored.trained_in
        data_format = found if trained_precision == str(precision) else "auto"
    trained = trained.in_data_format(choose_data_format(data_format, precision, device))
    _require_size(trained.model, len(classes), weights, str(file))
    model = new_model(trained.model, len(classes), trained.train.seed)
    load_weights(model, weights, str(file))
    model.eval()
    return RestoredModel(model, trained, classes, file, precision, stored.clip_seconds)


def new_model(spec: ModelSpec, num_classes: int, seed: int = 0) -> Any:
    """An untrained model with random weights from `seed`; with the data format "auto" it takes channels first.

    Raises UsageError, which begins with the key of the config, where there is no such model.
    """
    import_paddle().seed(seed)
    return _built(spec, num_classes)


def _built(spec: ModelSpec, num_classes: int) -> Any:
    try:
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
    except UsageError as error:  # begins with the argument that is wrong, or with: model NAME is unknown
        key = str(error) if spec.name in MODELS else str(error).replace("model ", "name ", 1)
        raise UsageError(f"model.{key}") from error


def load_weights(model: Any, weights: Arrays, source: str) -> None:
    """Copy `weights` into `model`.

    Raises CheckpointError with the keys that are missing, unexpected, misshapen or of another dtype.
    """
    paddle = import_paddle()
    own = model.state_dict()
    _require_fit(weights, {key: tensor.shape for key, tensor in own.items()}, source)
    for key, tensor in own.items():
        tensor.set_value(paddle.to_tensor(weights[key]))


def _require_fit(weights: Arrays, shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise CheckpointError unless `weights` are float32 of the `shapes` that the model has, by their names."""
    problems = [f"missing {key}" for key in shapes if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in shapes]
    for key, shape in shapes.items():
        if key not in weights:
            continue
        array = weights[key]
        if list(array.shape) != list(shape):
            problems.append(f"{key} is {list(array.shape)}, the model has {list(shape)}")
        elif array.dtype != np.float32:
            problems.append(f"{key} is {array.dtype}, the model has float32")
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(f"{source}: does not fit the model: {'; '.join(problems[:10])}{more}")


def _require_size(spec: ModelSpec, num_classes: int, weights: Arrays, source: str) -> None:
    """Raise CheckpointError where `weights` are far fewer than the model has that they describe, before it is built.

    A small file could describe a network that takes all memory.
    """
    if spec.name not in MODELS:
        return  # new_model says so
    numbers = estimated_parameters(spec.name, num_classes, spec.width, spec.stem_factor)
    if 4 * numbers > _ALWAYS_BUILT + 2 * sum(array.nbytes for array in weights.values()):
        _require_fit(weights, weight_shapes(lambda: _built(spec, num_classes)), source)

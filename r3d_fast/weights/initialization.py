"""Starts a new run from the weights that `init.weights` names: those of another run, or other people's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.specs import AugmentSpec
from r3d_fast.config.sections import InitSpec, ModelSpec
from r3d_fast.console import counted, quoted, tell
from r3d_fast.errors import CheckpointError, ConfigError
from r3d_fast.models.architectures import MODELS
from r3d_fast.weights.foreign.importer import translate_weights
from r3d_fast.weights.foreign.state_dict import is_foreign
from r3d_fast.weights.known_weights import weights_path
from r3d_fast.weights.normalisation import as_options, described, same_scale
from r3d_fast.weights.stored_model import StoredWeights, load_weights, read_weights

_HEAD = "head."


def require_weights(init: InitSpec, *, is_new_run: bool) -> None:
    """Raise ConfigError if `init` asks for a new head but names no weights to start from.

    Raises UsageError if a new run is to start from weights that are not there. One that goes on does not read them.
    """
    if is_new_run and init.weights is not None:
        weights_path(init.weights)
    if init.num_classes_changed == "reinit_head" and init.weights is None:
        raise ConfigError(
            "init.num_classes_changed is reinit_head, but init.weights is unset: expected the weights to start from; "
            "add -o init.weights=FILE"
        )


def initialise(model: Any, spec: ModelSpec, init: InitSpec, augment: AugmentSpec, classes: Sequence[str]) -> None:
    """Load the weights that `init` names into the new `model`, and say so on stderr.

    `spec`: what the model was made of; `augment`: how its clips are made; `classes`: the classes of the data set. Where
    the weights are for other classes and `init.num_classes_changed` allows it, the head keeps its random weights.
    Raises UsageError where there are no such weights, or where they were trained on pixels with another scale;
    CheckpointError where they are damaged, NaN or infinite, of another model, or for other classes.
    """
    assert init.weights is not None
    stored = _read(weights_path(init.weights), spec)
    _check_fit(stored, spec, augment)
    weights, own = dict(stored.weights), model.state_dict()
    changed = _difference(stored.classes, classes)
    if changed is not None:
        heads = {key: own[key] for key in own if key.startswith(_HEAD)}
        if init.num_classes_changed == "error":
            shapes = "; ".join(
                f"{key} is {list(weights[key].shape)}, the model has {list(tensor.shape)}"
                for key, tensor in heads.items()
                if key in weights and list(weights[key].shape) != list(tensor.shape)
            )
            raise CheckpointError(
                f"init.weights {stored.file}: trained for other classes than those of the data set: {changed}"
                f"{f' ({shapes})' if shapes else ''}; to start with a new head, add -o "
                "init.num_classes_changed=reinit_head"
            )
        weights = {key: array for key, array in weights.items() if not key.startswith(_HEAD)}
        weights |= {key: np.asarray(tensor.numpy()) for key, tensor in heads.items()}
    load_weights(model, weights, f"init.weights {stored.file} ({stored.config.model.name})")
    head = "" if changed is None else f"; with a new head ({changed})"
    classes = counted(len(stored.classes), "class", "classes")
    tell(f"starting from {stored.file} ({stored.config.model.name}, {classes}){head}")


def _read(path: Path, spec: ModelSpec) -> StoredWeights:
    """The weights at `path`: of this project, or a .pth or .pdparams, which is translated first.

    What no such file tells, the stride of the stem in time and the max pool, is taken as `spec` has it.
    """
    if not is_foreign(path):
        return read_weights(path)
    try:
        found = translate_weights(path, conv1_t_stride=spec.conv1_t_stride, no_max_pool=not spec.max_pool)
    except UsageError as error:  # what is missing is an option of import-weights
        raise UsageError(
            f"init.weights {error}; import it with that option, and start from the result: "
            f"{quoted('r3d-fast', 'import-weights', path, '-o', f'{path.stem}.safetensors')}"
        ) from error
    tell(f"pixels of {path}: {found.scale.name} ({found.scale.reason.partition('; --')[0]})")
    return StoredWeights(found.weights, found.config, found.classes, path)


def _check_fit(stored: StoredWeights, mine: ModelSpec, augment: AugmentSpec) -> None:
    """Raise an error where the weights are of another model, or were trained on pixels of another scale.

    Some differences leave names and shapes of the weights as they are, so that they would load. The message has all
    options that make the config fit: UsageError where only the scale differs, else CheckpointError.
    """
    theirs = stored.config.model
    asked, found = _built(mine, theirs.name), _built(theirs, theirs.name)
    other = {key: value for key, value in found.items() if asked[key] != value}
    options = [f"-o model.{key}={str(value).lower() if key == 'max_pool' else value}" for key, value in other.items()]
    other_scale = not same_scale(stored.config.augment, augment)
    if other_scale:
        options.append(as_options(stored.config.augment))
    if theirs.name != mine.name:
        raise CheckpointError(
            f"init.weights {stored.file}: weights of model {theirs.name}, but this config asks for {mine.name}; "
            f"expected the same: add {' '.join([f'-o model.name={theirs.name}', *options])}"
        )
    if other:
        differences = ", ".join(f"{key} {value} (this config: {asked[key]})" for key, value in other.items())
        raise CheckpointError(
            f"init.weights {stored.file}: weights of a {mine.name} with {differences}; expected the same: add "
            f"{' '.join(options)}"
        )
    if other_scale:
        raise UsageError(
            f"init.weights {stored.file}: trained on pixels with {described(stored.config.augment)}, this config has "
            f"{described(augment)}; expected the same: add {options[0]}"
        )


def _built(spec: ModelSpec, name: str) -> dict[str, Any]:
    """How `spec` builds the model called `name`, as far as weights depend on it in what they compute."""
    own = MODELS[name].shortcut
    stem = {key: getattr(spec, key) for key in ("conv1_t_size", "conv1_t_stride", "max_pool", "stem_factor")}
    return {"shortcut": spec.shortcut or own, **stem}


def _difference(theirs: Sequence[str], mine: Sequence[str]) -> str | None:
    """How the classes of the weights differ from those of the data set, in words; None where they are the same."""
    if len(theirs) != len(mine):
        return f"{counted(len(theirs), 'class', 'classes')} in the weights, {len(mine)} in the data set"
    for number, (one, other) in enumerate(zip_longest(theirs, mine)):
        if one != other:
            return f"class {number} is {one!r} in the weights, {other!r} in the data set"
    return None

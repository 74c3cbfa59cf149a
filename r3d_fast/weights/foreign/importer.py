"""Imports weights of other projects: one .safetensors with all that `predict`, `eval` and `init.weights` need.

The project and the network are recognised by the names and shapes of the tensors, the scale of the pixels by what else
the program that wrote the file has left in it (pixel_scale.py). What no file tells is asked for: whether the stem has a
stride in time, and whether a max pool follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.errors import UsageError
from pipelines.output.files import check_writable, file_digest, new_file
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.config.config import Config
from r3d_fast.config.sections import EvalSpec, ModelSpec
from r3d_fast.console import quoted
from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import MODELS
from r3d_fast.weights.checkpoint import FORMAT, MANIFEST
from r3d_fast.weights.foreign.class_names import read_class_names
from r3d_fast.weights.foreign.pixel_scale import PixelScale, choose_scale
from r3d_fast.weights.foreign.state_dict import ForeignWeights, read_foreign
from r3d_fast.weights.foreign.tensor_names import RecognisedNetwork, recognise, renamed
from r3d_fast.weights.normalisation import described
from r3d_fast.weights.stored_model import load_weights, new_model
from r3d_fast.weights.weights_file import write_weights_file

# configs/ucf101/ucf101_r3d18_paper.yaml has the same, with its reasons.
_PAPER_CLIP = {"sampling": "consecutive", "short": "loop", "reach_end": False}
_PAPER_AUGMENT = {
    "scales": (1.0, 0.84089641525, 0.7071067811803, 0.5946035574935, 0.4999999999912),
    "max_scale_step": 0, "positions": "corners5", "snap_px": 0,
}  # fmt: skip
# torchvision/references/video_classification/train.py: --frame-rate 15 --clip-len 16 --clips-per-video 5. A stride of 2
# is that rate for videos of 30 frames a second.
_TORCHVISION_CLIP = {"sampling": "consecutive", "stride": 2, "short": "loop", "views": 5}
_STATISTICS = ("._mean", "._variance")  # of batch norms: not learned, so not counted as parameters
_AS_IT_WAS = "what was there is as it was"
# A small file must not make a huge network. Every network here has more numbers than 1000 times its width squared.
_NUMBERS_LEAST, _WIDEST = 1000, 512  # a factor of the width squared; the limit of ModelSpec
# In files with the tensor names of this project. An R(2+1)D has two convolutions in its stem.
_STEMS, _FC = ("backbone.stem.1.conv.weight", "backbone.stem.0.conv.weight"), "head.fc.weight"


@dataclass(frozen=True)
class TranslatedWeights:
    """Weights of another project by the names of this one, with the config and the classes that go with them.

    `scale`: the scale of the pixels, and why it is taken. `named`: whether the user gave names of the classes.
    `architecture`: as the file names it, if it does. `names`: whose names its tensors have (see RecognisedNetwork).
    """

    weights: Arrays
    config: Config
    classes: tuple[str, ...]
    scale: PixelScale
    named: bool
    architecture: str | None
    names: str


@dataclass(frozen=True)
class ImportedWeights:
    """What was imported, how it is to be used, and how that was decided.

    `scale`, `named` and `names` are as in TranslatedWeights.
    """

    out: Path
    config: Config
    classes: tuple[str, ...]
    parameters: int
    scale: PixelScale
    named: bool
    names: str


def import_weights(source: Path, out: Path, **options: Any) -> ImportedWeights:
    """Write the weights in `source`, a .pth or .pdparams, to `out`, a .safetensors; returns what it now holds.

    `options` are those of translate_weights. `out` changes only if all goes well. Raises what translate_weights raises,
    and UsageError where `out` can't be written.
    """
    _check_place(source, out)
    found = translate_weights(source, **options)
    about = {
        "format": FORMAT, "config": found.config.model_dump(mode="json"), "classes": list(found.classes),
        "source": {"file": source.name, "sha256": file_digest(source), "architecture": found.architecture},
    }  # fmt: skip
    with new_file(out, _AS_IT_WAS) as file:
        write_weights_file(file, found.weights, about)
    parameters = sum(array.size for name, array in found.weights.items() if not name.endswith(_STATISTICS))
    return ImportedWeights(out, found.config, found.classes, parameters, found.scale, found.named, found.names)


def translate_weights(
    source: Path,
    *,
    model: str | None = None,
    classes: Path | None = None,
    normalize: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_max: int | None = None,
    num_frames: int = 16,
    conv1_t_stride: int = 1,
    no_max_pool: bool = False,
) -> TranslatedWeights:
    """The weights in `source`, a .pth or .pdparams, for the network here that they are of.

    `model` names the network (default: recognised by the tensors), `classes` a file of class names (default: class 0,
    class 1, ...), `normalize` one of NORMALISATIONS (default: by signs in the file); `mean`, `std` and `value_max`
    replace single values of it. `conv1_t_stride` and `no_max_pool` say how the network was built. No code of `source`
    is run. Raises CheckpointError where the file is damaged, would run code,
    has NaN or infinite numbers, or does not fit the network key by key; UsageError for an argument out of its range, or
    where the scale has to be given.
    """
    foreign = read_foreign(source)
    found, weights = _recognised(foreign, model, source)
    if found.num_classes is None:
        raise CheckpointError(f"{source}: {found.model} without its last layer; expected the whole network")
    numbers = sum(array.size for array in weights.values())
    if not 1 <= found.width <= _WIDEST or numbers < _NUMBERS_LEAST * found.width**2:
        raise CheckpointError(
            f"{source}: {numbers} numbers, too few for {found.model} of {found.width} channels; expected all weights"
        )
    names, named = _classes(classes, found.num_classes, source)
    spec = _model_spec(found, conv1_t_stride, max_pool=not no_max_pool and found.names != "torchvision")
    load_weights(_network(spec, len(names), source), weights, str(source))
    values = {"value_max": value_max, "mean": mean, "std": std}
    given = {key: value for key, value in values.items() if value is not None}
    try:
        scale = choose_scale(foreign, found, normalize, given)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    config = _config(spec, scale, num_frames, found.names)
    return TranslatedWeights(weights, config, names, scale, named, foreign.architecture, found.names)


def import_summary(imported: ImportedWeights, source: Path) -> list[str]:
    """The lines that describe the import of `source`, and the commands that use the result."""
    config, count = imported.config, len(imported.classes)
    clip, model = config.clip, config.model
    rate = "consecutive frames" if clip.stride == 1 else f"frames, {clip.stride} apart"
    frames = f"{clip.num_frames} {'segments' if clip.sampling == 'segments' else rate}"
    windows = {"all": "every window", "paper": "every window but a last one of one frame"}
    names = "named" if imported.named else "numbered; --classes FILE gives them names"
    return [
        f"{imported.out}: {model.name}{f', shortcut {model.shortcut}' if model.shortcut else ''}, "
        f"{imported.parameters:,} parameters, out of {source}",
        f"stem     {_stem_in_words(model, imported.names)}",
        f"classes  {count}, {names}",
        f"pixels   {imported.scale.name} ({imported.scale.reason}): {described(config.augment)}",
        f"clips    {frames}, {windows.get(str(clip.views), f'{clip.views} a video')}",
        f"predict: r3d-fast predict {quoted(imported.out)} VIDEO...",
        f"train:   r3d-fast train -c CFG -o {quoted(f'init.weights={imported.out}')}",
    ]


def _stem_in_words(model: ModelSpec, names: str) -> str:
    """How the network begins, with the options for what the file does not tell.

    `names`: those of the tensors, which tell all of it but for the authors' networks (see RecognisedNetwork).
    """
    seen = f"{model.width * model.stem_factor} channels, a kernel of {model.conv1_t_size} frames"
    pool = "a max pool" if model.max_pool else "no max pool"
    if model.name == "r3d18_reference":
        return seen
    if names == "torchvision":
        return f"{seen}, stride {model.conv1_t_stride} in time, {pool}"
    return f"{seen}; as no file tells: stride {model.conv1_t_stride} in time (--conv1-t-stride), {pool} (--no-max-pool)"


def _recognised(foreign: ForeignWeights, model: str | None, source: Path) -> tuple[RecognisedNetwork, Arrays]:
    """(the network, its weights by the names of this project); `model`: what the user calls it.

    Raises CheckpointError where the tensors are not those of a known network.
    """
    shapes = {name: array.shape for name, array in foreign.tensors.items()}
    try:
        stem = next((shapes[name] for name in _STEMS if name in shapes), None)
        if model is not None and _FC in shapes and stem is not None:  # names of this project: any model of it
            found = RecognisedNetwork(model, _own_shortcut(model, shapes), shapes[_FC][1], stem[0], "ours", stem[2])
        else:
            found = recognise(shapes, foreign.architecture)
            found = replace(found, model=model or found.model)
        return found, renamed(foreign.tensors, found)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except (LookupError, ArithmeticError, StopIteration, TypeError, ValueError) as error:  # from impossible shapes
        raise CheckpointError(
            f"{source}: the tensors have the names of a known network, but shapes that it can't have ({error})"
        ) from error


def _own_shortcut(model: str, shapes: Mapping[str, Any]) -> str | None:
    """The shortcut of `model` by the names of this project; None for a model that has no shortcuts, or is none."""
    if model not in MODELS or MODELS[model].shortcut is None:
        return None
    return "B" if any(".downsample." in name for name in shapes) else "A"


def _network(spec: ModelSpec, num_classes: int, source: Path) -> Any:
    """The network of `spec`, untrained. Raises CheckpointError where the file leads to no valid network.

    Raises UsageError where options do: `spec` names no known network, or one that has no such stem.
    """
    try:
        return new_model(spec, num_classes)
    except UsageError as error:
        if spec.name not in MODELS or spec.conv1_t_stride != 1 or not spec.max_pool:
            raise
        raise CheckpointError(f"{source}: {error}") from error


def _check_place(source: Path, out: Path) -> None:
    """Raise UsageError where the result can't or must not be written to `out`."""
    if out.suffix != ".safetensors":
        raise UsageError(f"-o {out}: expected a name that ends in .safetensors")
    if not out.parent.is_dir():
        raise UsageError(f"-o {out}: the folder {out.parent} does not exist; make it first")
    if (out.parent / MANIFEST).exists() or (out.exists() and not out.is_file()):
        raise UsageError(f"-o {out}: belongs to a checkpoint of a run, or is not a file; choose another name")
    if out.resolve() == source.resolve():
        raise UsageError(f"-o {out}: is the source file itself; choose another name")
    check_writable(out, _AS_IT_WAS)


def _classes(file: Path | None, count: int, source: Path) -> tuple[tuple[str, ...], bool]:
    """(the names of the `count` classes, whether the user gave them in `file`)."""
    if file is None:
        return tuple(f"class {number}" for number in range(count)), False
    names = read_class_names(file)
    if len(names) != count:
        raise UsageError(
            f"--classes {file}: {len(names)} class names, but {source} has {count} classes; expected as many"
        )
    return names, True


def _model_spec(found: RecognisedNetwork, conv1_t_stride: int, *, max_pool: bool) -> ModelSpec:
    """The model that goes with the weights. Raises UsageError for a stride that no model has."""
    values = {
        "name": found.model, "shortcut": found.shortcut, "width": found.width, "conv1_t_size": found.conv1_t_size,
        "stem_factor": found.stem_factor, "conv1_t_stride": conv1_t_stride, "max_pool": max_pool,
    }  # fmt: skip
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"{error.errors()[0]['loc'][-1]} {error.errors()[0]['input']}: {error.errors()[0]['msg']}"
        ) from error


def _config(spec: ModelSpec, scale: PixelScale, num_frames: int, names: str) -> Config:
    """The config that goes with the weights: their network, the clips and the scale of the pixels.

    `names`: those of the tensors, which tell whose weights they are (see RecognisedNetwork).
    """
    views = "paper" if scale.name == "hara" else "all"  # which windows the branches evaluate; the rest is the same
    clips: dict[str, Any] = {"torch": {**_PAPER_CLIP, "views": views}, "torchvision": _TORCHVISION_CLIP}.get(names, {})
    try:
        return Config(
            clip=ClipSpec(num_frames=num_frames, **clips),
            augment=AugmentSpec(**scale.values, **(_PAPER_AUGMENT if names == "torch" else {})),
            model=spec,
            eval=EvalSpec(views=clips.get("views", 1)),
        )
    except ValidationError as error:
        given = ", ".join(f"{name} {value}" for name, value in scale.values.items())
        raise UsageError(f"{given}; expected --value-max 1 or 255, finite --mean, --std above 0") from error

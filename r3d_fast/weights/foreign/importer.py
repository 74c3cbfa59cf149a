"""Other people's weights -> one .safetensors for `predict`, `eval` and `init.weights`, with all that belongs to it.

Whose they are and which network they fit is read off their names and shapes; how pixels have to be scaled can't be, and
is guessed from whose they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.errors import UsageError
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.config.config import Config
from r3d_fast.config.sections import EvalSpec, ModelSpec
from r3d_fast.errors import CheckpointError
from r3d_fast.files import file_digest, new_file
from r3d_fast.models.architectures import MODELS
from r3d_fast.weights.checkpoint import FORMAT, MANIFEST
from r3d_fast.weights.foreign.class_names import read_class_names
from r3d_fast.weights.foreign.state_dict import ForeignWeights, read_foreign
from r3d_fast.weights.foreign.tensor_names import RecognisedNetwork, recognise, renamed
from r3d_fast.weights.normalisation import FIELDS, NORMALISATIONS, described
from r3d_fast.weights.stored_model import load_weights, new_model, tensors_digest
from r3d_fast.weights.tensor_file import write_tensors

# configs/ucf101_r3d18_paper.yaml has the same, with its reasons.
_PAPER_CLIP = {"sampling": "consecutive", "short": "loop", "views": "all"}
_PAPER_AUGMENT = {
    "scales": (1.0, 0.84089641525, 0.7071067811803, 0.5946035574935, 0.4999999999912),
    "max_scale_step": 0, "positions": "corners5", "snap_px": 0,
}  # fmt: skip
_STATISTICS = ("._mean", "._variance")  # of batch norms; not learnt, so not counted
# A small file must not make a huge network: r3d10, densenet121 and all others have more numbers than that.
_NUMBERS_LEAST, _WIDEST = 1000, 512  # times the width squared; ModelSpec's limit
_STEM, _FC = "backbone.stem.0.conv.weight", "head.fc.weight"  # of a file that has our names


@dataclass(frozen=True)
class ImportedWeights:
    """What was imported, how it is to be used, and how that was decided."""

    out: Path
    config: Config
    classes: tuple[str, ...]
    parameters: int
    normalisation: str
    guessed: bool
    named: bool


def import_weights(
    source: Path,
    out: Path,
    *,
    model: str | None = None,
    classes: Path | None = None,
    normalize: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_max: int | None = None,
    num_frames: int = 16,
) -> ImportedWeights:
    """What was written to `out`, a .safetensors: the weights in `source`, a .pth or .pdparams, and how to use them.

    `model` names the network (default: read off the file), `classes` a file of class names (default: class 0, ...),
    `normalize` one of NORMALISATIONS, of which `mean`, `std` and `value_max` replace single values (default: guessed).
    Nothing of `source` is run; `out` is replaced when all is well. Raises CheckpointError where the file is damaged,
    hostile, not numbers, or does not fit the network key by key; UsageError for an argument out of its range;
    EnvironmentProblem where a .pth needs PyTorch.
    """
    _check_place(source, out)
    foreign = read_foreign(source)
    found, weights = _recognised(foreign, model, source)
    if found.num_classes is None:
        raise CheckpointError(f"{source}: {found.model} without its last layer; expected a whole network")
    numbers = sum(array.size for array in weights.values())
    if not 1 <= found.width <= _WIDEST or numbers < _NUMBERS_LEAST * found.width**2:
        raise CheckpointError(f"{source}: {numbers} numbers, too few for {found.model} of {found.width} channels")
    names, named = _classes(classes, found.num_classes, source)
    scale = normalize or _guessed_scale(foreign, found)
    if scale not in NORMALISATIONS:
        raise UsageError(f"normalize {scale!r}: expected one of {', '.join(NORMALISATIONS)}")
    given = {"value_max": value_max, "mean": mean, "std": std}
    chosen = {**NORMALISATIONS[scale], **{key: value for key, value in given.items() if value is not None}}
    config = _config(found, chosen, num_frames)
    load_weights(_network(config.model, len(names), source), weights, str(source))
    about = {
        "format": FORMAT, "config": config.model_dump(mode="json"), "classes": list(names),
        "tensors_sha256": tensors_digest(weights),
        "source": {"file": source.name, "sha256": file_digest(source), "architecture": foreign.architecture},
    }  # fmt: skip
    with new_file(out, "what was there is as it was") as file:
        write_tensors(file, weights, {"r3d_fast": json.dumps(about)})
    parameters = sum(array.size for name, array in weights.items() if not name.endswith(_STATISTICS))
    own = any(value is not None for value in given.values())
    guessed = normalize is None and not own
    return ImportedWeights(out, config, names, parameters, "given" if own else scale, guessed, named)


def import_summary(imported: ImportedWeights, source: Path) -> list[str]:
    """Lines that say what was made of `source`, and what to do with it."""
    config, count = imported.config, len(imported.classes)
    clip, shortcut = config.clip, config.model.shortcut
    frames = (
        f"{clip.num_frames} consecutive frames" if clip.sampling == "consecutive" else f"{clip.num_frames} segments"
    )
    how = "guessed from the file; --normalize has the others" if imported.guessed else "as asked for"
    names = "named" if imported.named else "numbered; --classes FILE gives them names"
    return [
        f"{imported.out}: {config.model.name}{f', shortcut {shortcut}' if shortcut else ''}, "
        f"{imported.parameters:,} parameters, out of {source}",
        f"classes  {count}, {names}",
        f"pixels   {imported.normalisation} ({how}): {described(config.augment)}",
        f"clips    {frames}, {'every window' if clip.views == 'all' else f'{clip.views} a video'}",
        f"predict: r3d-fast predict {imported.out} VIDEO...",
        f"train:   r3d-fast train -c CFG -o init.weights={imported.out}",
    ]


def _recognised(foreign: ForeignWeights, model: str | None, source: Path) -> tuple[RecognisedNetwork, Arrays]:
    """(which network it is, its weights by our names); `model`: what the user says it is. Raises CheckpointError."""
    shapes = {name: array.shape for name, array in foreign.tensors.items()}
    try:
        if model is not None and _FC in shapes and _STEM in shapes:  # named as here: any of ours could be
            found = RecognisedNetwork(model, None, shapes[_FC][1], shapes[_STEM][0], "ours")
        else:
            found = recognise(shapes, foreign.architecture)
            found = replace(found, model=model or found.model)
        return found, renamed(foreign.tensors, found)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except (LookupError, ArithmeticError, StopIteration, TypeError, ValueError) as error:  # of shapes that are none
        raise CheckpointError(
            f"{source}: names of a known network on tensors of shapes that are not its own ({error})"
        ) from error


def _network(spec: ModelSpec, num_classes: int, source: Path) -> Any:
    """The network that the weights are for. Raises CheckpointError where it is none, UsageError for a --model."""
    try:
        return new_model(spec, num_classes)
    except UsageError as error:
        if spec.name not in MODELS:
            raise
        raise CheckpointError(f"{source}: {error}") from error


def _guessed_scale(foreign: ForeignWeights, found: RecognisedNetwork) -> str:
    """Whose pixels a network is used to, by whose names it has.

    The authors' first files were written before PyTorch had batch counters; their later ones have them.
    """
    if found.names == "ours":
        return "imagenet"
    return "kinetics" if foreign.counts_batches else "hara"


def _check_place(source: Path, out: Path) -> None:
    """Raise UsageError where `out` is no place for the result."""
    if out.suffix != ".safetensors":
        raise UsageError(f"-o {out}: expected a name that ends in .safetensors")
    if not out.parent.is_dir():
        raise UsageError(f"-o {out}: the folder {out.parent} does not exist; make it first")
    if (out.parent / MANIFEST).exists() or (out.exists() and not out.is_file()):
        raise UsageError(f"-o {out}: belongs to a checkpoint of a run, or is no file; choose another name")
    if out.resolve() == source.resolve():
        raise UsageError(f"-o {out}: is the source itself; choose another name")


def _classes(file: Path | None, count: int, source: Path) -> tuple[tuple[str, ...], bool]:
    """(names of classes, whether they were given)."""
    if file is None:
        return tuple(f"class {number}" for number in range(count)), False
    names = read_class_names(file)
    if len(names) != count:
        raise CheckpointError(f"{file}: {len(names)} class names, {source} has {count} classes; expected as many")
    return names, True


def _config(found: RecognisedNetwork, scale: Mapping[str, Any], num_frames: int) -> Config:
    """How the weights are to be used."""
    paper = found.names != "ours"
    try:
        return Config(
            clip=ClipSpec(num_frames=num_frames, **(_PAPER_CLIP if paper else {})),
            augment=AugmentSpec(**{field: scale[field] for field in FIELDS}, **(_PAPER_AUGMENT if paper else {})),
            model=ModelSpec.model_validate({"name": found.model, "shortcut": found.shortcut, "width": found.width}),
            eval=EvalSpec(views="all" if paper else 1),
        )
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UsageError(
            f"{'; '.join(problems)}; expected --value-max 1 or 255, finite --mean, --std above 0"
        ) from error

"""Decides how pixels were scaled for the weights in a file, by signs of the program that wrote it.

The two branches of kenshohara/3D-ResNets-PyTorch scale pixels differently: CVPR2018 as "hara", master as "kinetics" (in
normalisation.py). No file says which, but each branch leaves signs that the other does not: what it saves beside the
weights (main.py and train.py), and networks that only one of them builds (models/*.py). What any program leaves, such
as the batch counters of every newer PyTorch, is no sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UsageError
from r3d_fast.weights.foreign.state_dict import ForeignWeights
from r3d_fast.weights.foreign.tensor_names import RecognisedNetwork
from r3d_fast.weights.normalisation import FIELDS, NORMALISATIONS

_HARA, _KINETICS = "hara", "kinetics"
_ASKED = "as asked for"
_BRANCH = {_HARA: "CVPR2018", _KINETICS: "master"}


@dataclass(frozen=True)
class PixelScale:
    """A scale of pixels: its name, in words why it is taken, and its values as fields of AugmentSpec."""

    name: str
    reason: str
    values: Mapping[str, Any]


def choose_scale(
    foreign: ForeignWeights, found: RecognisedNetwork, normalize: str | None, given: Mapping[str, Any]
) -> PixelScale:
    """The scale called `normalize`, else that of the signs in the file; the values in `given` replace its own.

    Raises UsageError for an unknown name, and where the signs don't tell although values are left open.
    """
    if normalize is not None and normalize not in NORMALISATIONS:
        raise UsageError(f"normalize {normalize!r}: expected one of {', '.join(NORMALISATIONS)}")
    if given.keys() == set(FIELDS):
        return _plausible(PixelScale("given", _ASKED, dict(given)))
    name, reason = (normalize, _ASKED) if normalize else _scale_of_file(foreign, found)
    if given:
        reason += f"; {', '.join(given)} {_ASKED}"
    return _plausible(PixelScale(name, reason, {**NORMALISATIONS[name], **given}))


def _plausible(scale: PixelScale) -> PixelScale:
    """`scale`. Raises UsageError where no picture can have its mean."""
    value_max, mean = scale.values["value_max"], scale.values["mean"]
    if max(mean) > value_max:
        raise UsageError(
            f"mean {list(mean)} of pixels from 0 to {value_max}; expected no value above {value_max}: give --mean, "
            "--std and --value-max that belong together, or --normalize"
        )
    return scale


def _scale_of_file(foreign: ForeignWeights, found: RecognisedNetwork) -> tuple[str, str]:
    """(name of the scale of pixels that the signs in a file agree on, the signs in words).

    Raises UsageError where there is no sign, or where two of them disagree; the message names them and the option that
    decides.
    """
    if found.names == "ours":
        return "imagenet", "that of justld/3D-ResNets_paddle, by the names of the tensors; --normalize takes another"
    if found.names == "torchvision":
        return "torchvision", "that of torchvision, by the names of the tensors; --normalize takes another"
    by_scale: dict[str, list[str]] = {}
    for scale, text in _signs(foreign, found):
        by_scale.setdefault(scale, []).append(text)
    if not by_scale:
        raise UsageError(
            "nothing in it tells how pixels were scaled for these weights; expected --normalize hara (0 to 255 minus a "
            "mean, weights of the authors' branch CVPR2018) or --normalize kinetics (0 to 1, of their branch master)"
        )
    if len(by_scale) > 1:
        both = ", but ".join(f"{' and '.join(texts)} of branch {_BRANCH[scale]}" for scale, texts in by_scale.items())
        raise UsageError(
            f"its signs of how pixels were scaled disagree: it has {both}; expected --normalize hara (CVPR2018) or "
            "--normalize kinetics (master)"
        )
    ((scale, texts),) = by_scale.items()
    return scale, f"that of the authors' branch {_BRANCH[scale]}, by {' and '.join(texts)}; --normalize takes another"


def _signs(foreign: ForeignWeights, found: RecognisedNetwork) -> list[tuple[str, str]]:
    """(scale, sign in words) of each sign that the file has."""
    signs = []
    if any(name.startswith("module.") for name in foreign.tensors):
        signs.append((_HARA, "the prefix module."))  # master takes it off before it saves
    if "scheduler" in foreign.beside:
        signs.append((_KINETICS, "the key scheduler"))
    elif "optimizer" in foreign.beside:
        signs.append((_HARA, "a key optimizer without scheduler"))  # master saves both
    if found.model.startswith("r2plus1d"):
        signs.append((_KINETICS, "an R(2+1)D"))
    if found.conv1_t_size != 7:
        signs.append((_KINETICS, f"a stem of {found.conv1_t_size} frames"))
    if found.model.startswith(("wide", "resnext")):
        what = f"a stem of {found.width * found.stem_factor} channels"
        signs.append((_KINETICS if found.stem_factor == 2 else _HARA, what))
    if found.model.startswith("densenet"):
        first = any(name.removeprefix("module.").startswith("features.conv0.") for name in foreign.tensors)
        signs.append((_HARA, "the name features.conv0") if first else (_KINETICS, "the name features.conv1"))
    return signs

"""The scale of pixels: how they are normalised to a network's inputs. Known scales, and whether two are the same.

The scale belongs to the weights: with another scale than in training a network gives wrong outputs without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.specs import AugmentSpec

# The known scales as fields of AugmentSpec.
# hara: kenshohara/3D-ResNets-PyTorch, branch CVPR2018, mean.py (ActivityNet), pixels 0..255, no division.
# kinetics: the same project's master branch, main.py get_mean_std, pixels 0..1.
# torchvision: transforms/_presets.py VideoClassification, for its networks trained on Kinetics, pixels 0..1.
# imagenet: what PaddleVideo and the reference run (justld/3D-ResNets_paddle) use.
NORMALISATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "hara": {"value_max": 255, "mean": (114.7748, 107.7354, 99.4750), "std": (1.0, 1.0, 1.0)},
        "kinetics": {"value_max": 1, "mean": (0.4345, 0.4051, 0.3775), "std": (0.2768, 0.2713, 0.2737)},
        "torchvision": {"value_max": 1, "mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)},
        "imagenet": {"value_max": 1, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    }
)
FIELDS = ("value_max", "mean", "std")
_TOLERANCE = 0.01  # as a share of the range of inputs: two roundings of the same means are the same scale


def same_scale(one: AugmentSpec, other: AugmentSpec) -> bool:
    """Whether both turn the same pixels into the same inputs, to a hundredth of the range of inputs."""
    first, second = _ends(one), _ends(other)
    span = np.maximum(first[1] - first[0], second[1] - second[0])
    return bool((np.abs(first - second) <= _TOLERANCE * span).all())


def described(spec: AugmentSpec) -> str:
    """The scale of `spec` as text for a message: value_max 1, mean [...], std [...]."""
    return f"value_max {spec.value_max}, mean {list(spec.mean)}, std {list(spec.std)}"


def as_options(spec: AugmentSpec) -> str:
    """The scale of `spec` as options of a command line: -o 'augment.value_max=1' and so on."""
    return " ".join(
        f"-o 'augment.{name}={[*value] if isinstance(value, tuple) else value}'"
        for name, value in ((name, getattr(spec, name)) for name in FIELDS)
    )


def with_scale_of(spec: AugmentSpec, source: AugmentSpec) -> AugmentSpec:
    """`spec` with the scale of `source`."""
    return spec.model_copy(update={name: getattr(source, name) for name in FIELDS})


def _ends(spec: AugmentSpec) -> NDArray[np.float64]:
    """The inputs for a black and a white pixel, float64 [2, 3]."""
    values = np.array([[0.0], [float(spec.value_max)]])
    ends: NDArray[np.float64] = (values - np.array(spec.mean)) / np.array(spec.std)
    return ends

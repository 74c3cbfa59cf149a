"""Recognises a model by the names and shapes of its tensors, and translates the names of other projects to ours.

Three projects are known: the .pth files of Hara et al. 2018 (kenshohara/3D-ResNets-PyTorch), from their first branch
(CVPR2018) and the later one (master); the r3d_18 of torchvision (torchvision/models/video/resnet.py); and the .pdparams
of the reference run (justld/3D-ResNets_paddle), whose names are the same as ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
Blocks = tuple[int, ...]

# The number of layers by the number of blocks in each stage: Hara et al. 2018, Table 1.
_BASIC: dict[Blocks, int] = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK: dict[Blocks, int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200}
_DENSE: dict[Blocks, int] = {(6, 12, 24, 16): 121, (6, 12, 32, 32): 169, (6, 12, 48, 32): 201, (6, 12, 64, 48): 264}
_DEPTHS = {
    "r3d": (10, 18, 34, 50, 101, 152, 200),
    "preact": (18, 34, 50, 101, 152, 200),
    "wide": (50,),
    "resnext": (50, 101, 152),
    "densenet": (121, 169, 201, 264),
    "r2plus1d": (18, 34, 50),
}
_ARCH = {  # names of the families in the authors' files, and ours
    "resnet": "r3d",
    "preresnet": "preact",
    "wideresnet": "wide",
    "resnext": "resnext",
    "densenet": "densenet",
    "resnet2p1d": "r2plus1d",
}
_TENSORS = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}


@dataclass(frozen=True)
class RecognisedNetwork:
    """The model in a file, as arguments of `build_model`.

    `num_classes` is None where the file has no last layer. `names`: "torch" for the names in the authors' files, "ours"
    for names that need no translation, "torchvision" for those of torchvision. Two things can't be seen in weights: the
    stride of the stem in time, and whether a max pool follows it; torchvision has a stride of 1 and none.
    """

    model: str
    shortcut: str | None
    num_classes: int | None
    width: int = 64
    names: str = "torch"
    conv1_t_size: int = 7
    stem_factor: int = 1


def recognise(shapes: Shapes, arch: str | None = None) -> RecognisedNetwork:
    """The model whose tensors have these names and shapes.

    `arch` is the architecture that the file names, such as "resnet-18"; it has to agree. Raises CheckpointError for any
    other model, with what came and what is known.
    """
    bare = {name: tuple(shape) for name, shape in _bare(shapes).items()}
    if any(name.startswith("backbone.") for name in bare):
        return _recognise_ours(bare)
    if "stem.0.weight" in bare and "layer1.0.conv1.0.weight" in bare:
        return _recognise_torchvision(bare)
    if "features.norm5.weight" in bare:
        found = _recognise_dense(bare)
    elif "conv1_s.weight" in bare and "conv1_t.weight" in bare:
        found = _recognise_factorised(bare)
    elif "conv1.weight" in bare and "layer1.0.conv1.weight" in bare:
        found = _recognise_residual(bare)
    else:
        raise CheckpointError(
            f"{len(bare)} tensors ({_some(bare)}): not the names of a known model; expected the names in files of "
            "kenshohara/3D-ResNets-PyTorch (conv1.weight, layer1.0.conv1.weight, ...), of torchvision's r3d_18 "
            "(stem.0.weight, ...) or of justld/3D-ResNets_paddle (backbone.stem.0.conv.weight, ...)"
        )
    _check_arch(found, arch)
    return found


def renamed(state: Mapping[str, NDArray[Any]], found: RecognisedNetwork) -> dict[str, NDArray[Any]]:
    """The tensors of `state` by our names; weights of linear layers are transposed to Paddle's [inputs, outputs].

    Raises CheckpointError for a tensor that the model does not have.
    """
    if found.names == "ours":
        return {name: np.asarray(value) for name, value in _bare(state).items()}
    renamed, unknown = {}, []
    for name, value in _bare(state).items():
        layer, _, tensor = name.rpartition(".")
        own_layer = _own_layer(_authors_layer(layer) if found.names == "torchvision" else layer, found.model)
        own = f"{own_layer}.{_TENSORS.get(tensor)}"
        if own_layer is None or tensor not in _TENSORS or own in renamed:
            unknown.append(name)
            continue
        is_linear = own_layer == "head.fc" and tensor == "weight"
        renamed[own] = np.ascontiguousarray(value.T) if is_linear else np.asarray(value)
    if unknown:
        raise CheckpointError(f"{found.model} has no tensors called {_some(unknown)}")
    return renamed


def _bare(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` without the prefix that DataParallel adds to names, and without the batch counters of PyTorch."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in bare.items() if not name.endswith("num_batches_tracked")}


def _recognise_ours(shapes: Shapes) -> RecognisedNetwork:
    stem, fc = shapes.get("backbone.stem.0.conv.weight"), shapes.get("head.fc.weight")
    blocks = _count(shapes, r"backbone\.layer(\d)\.(\d+)\.block\.0\.conv\.weight")
    is_reference = "backbone.layer1.0.downsample.0.bias" in shapes and blocks == (2, 2, 2, 2)
    if stem is None or not is_reference:
        raise CheckpointError(
            f"names such as {_some(shapes)} look like this project's own, by which only r3d18_reference is recognised; "
            "if it is another of its models, name it with --model"
        )
    return RecognisedNetwork("r3d18_reference", "B", fc[1] if fc else None, stem[0], "ours")


def _recognise_torchvision(shapes: Shapes) -> RecognisedNetwork:
    """The r3d_18 of torchvision. Its other networks for videos have blocks that are not built here."""
    if "stem.3.weight" in shapes or shapes.get("layer2.0.conv1.0.weight", ())[2:] != (3, 3, 3):
        name = "r2plus1d_18" if "stem.3.weight" in shapes else "mc3_18"
        raise CheckpointError(f"a network of torchvision like {name}, which is not built here; expected its r3d_18")
    as_authors: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        layer, dot, tensor = name.rpartition(".")
        as_authors[f"{_authors_layer(layer)}{dot}{tensor}"] = shape
    return replace(_recognise_residual(as_authors), names="torchvision")


def _authors_layer(layer: str) -> str:
    """The name in the authors' files of a `layer` of torchvision's r3d_18."""
    parts = {"0": "conv", "1": "bn"}  # of a pair of convolution and batch norm
    if match := re.fullmatch(r"stem\.([01])", layer):
        return f"{parts[match[1]]}1"
    if match := re.fullmatch(r"(layer[1-4]\.\d+)\.conv([12])\.([01])", layer):
        return f"{match[1]}.{parts[match[3]]}{match[2]}"
    return layer


def _recognise_dense(shapes: Shapes) -> RecognisedNetwork:
    first = "features.conv0" if "features.conv0.weight" in shapes else "features.conv1"
    width, frames = _stem("DenseNet", _shape(shapes, f"{first}.weight"))
    blocks = _count(shapes, r"features\.denseblock(\d)\.denselayer(\d+)\.conv\.?1\.weight", start=1)
    growth = next(shape[0] for name, shape in shapes.items() if re.search(r"denselayer1\.conv\.?2\.weight", name))
    if 2 * growth != width:
        raise CheckpointError(f"DenseNet of growth {growth} on a stem of {width} channels: expected {width / 2:g}")
    model, classes = _model("densenet", blocks, _DENSE), _classes(shapes, "classifier")
    return RecognisedNetwork(model, None, classes, width, conv1_t_size=frames)


def _recognise_factorised(shapes: Shapes) -> RecognisedNetwork:
    blocks = _count(shapes, r"layer(\d)\.(\d+)\.conv1(?:_s)?\.weight")
    model = _model("r2plus1d", blocks, _BOTTLENECK if "layer1.0.conv3.weight" in shapes else _BASIC)
    space, time = _shape(shapes, "conv1_s.weight"), _shape(shapes, "conv1_t.weight")
    _, frames = _stem(model, (*space[:2], time[2], *space[3:]))
    return RecognisedNetwork(model, _shortcut(shapes), _classes(shapes, "fc"), time[0], conv1_t_size=frames)


def _recognise_residual(shapes: Shapes) -> RecognisedNetwork:
    blocks = _count(shapes, r"layer(\d)\.(\d+)\.conv1\.weight")
    stem = _shape(shapes, "conv1.weight")
    if "layer1.0.conv3.weight" in shapes:
        family, width = _bottleneck_family(shapes)
        model = _model(family, blocks, _BOTTLENECK)
    else:
        width = _shape(shapes, "layer1.0.conv1.weight")[0]
        family = "preact" if _shape(shapes, "layer2.0.bn1.weight")[0] == width else "r3d"
        model = _model(family, blocks, _BASIC)
    channels, frames = _stem(model, stem)
    factors = (1, 2) if family in ("wide", "resnext") else (1,)
    if channels not in [factor * width for factor in factors]:
        expected = " or ".join(str(factor * width) for factor in factors)
        raise CheckpointError(f"{model} with a stem of {channels} channels: expected {expected}")
    return RecognisedNetwork(
        model, _shortcut(shapes), _classes(shapes, "fc"), width, conv1_t_size=frames, stem_factor=channels // width
    )


def _shortcut(shapes: Shapes) -> str:
    return "B" if any(".downsample." in name for name in shapes) else "A"


def _bottleneck_family(shapes: Shapes) -> tuple[str, int]:
    """(family, width of the stem) of a network of bottleneck blocks, recognised by its first block."""
    middle, seen = _shape(shapes, "layer1.0.conv2.weight")[:2]
    outputs = _shape(shapes, "layer1.0.conv3.weight")[0]
    groups, growth = middle // max(seen, 1), outputs / middle
    if groups > 1:
        if groups != 32 or growth != 2:
            raise CheckpointError(
                f"ResNeXt of cardinality {groups} whose blocks put out {growth:g} times their inner channels: expected "
                "32 and 2 times"
            )
        return "resnext", middle // 2
    if growth == 2:
        return "wide", middle // 2
    if growth != 4:
        raise CheckpointError(
            f"bottlenecks of {middle} channels that put out {outputs}: expected 2 or 4 times as many as inside"
        )
    return ("preact" if _shape(shapes, "layer1.0.bn3.weight")[0] == middle else "r3d"), middle


def _stem(model: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(output channels, frames of the kernel) of a stem. Raises CheckpointError where it does not fit `model`."""
    if len(shape) != 5:
        raise CheckpointError(f"{model} with a first convolution of shape {list(shape)}: expected 3D convolutions")
    if shape[1] != 3:
        raise CheckpointError(f"{model} for clips of {shape[1]} channels: expected 3, RGB")
    if shape[3:] != (7, 7) or shape[2] % 2 == 0:
        came = " x ".join(map(str, shape[2:]))
        raise CheckpointError(f"{model} with a stem of {came}: expected an odd number of frames x 7 x 7")
    return shape[0], shape[2]


def _model(family: str, blocks: Blocks, depths: dict[Blocks, int]) -> str:
    depth = depths.get(blocks)
    if depth is None:
        counts = ", ".join(map(str, blocks)) or "no"
        raise CheckpointError(f"{family} with {counts} blocks a stage: expected one of {_listed(depths)}")
    if depth not in _DEPTHS[family]:
        known = ", ".join(f"{family}{known}" for known in _DEPTHS[family])
        raise CheckpointError(f"{family} of {depth} layers is not a known model; expected {known}")
    return f"{family}{depth}"


def _count(shapes: Shapes, pattern: str, *, start: int = 0) -> Blocks:
    """The number of blocks in each stage, counted by the names of one layer of each block.

    Raises CheckpointError where a block is missing.
    """
    found: dict[int, set[int]] = {}
    for name in shapes:
        if match := re.fullmatch(pattern, name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage, blocks in found.items():
        if blocks != set(range(start, start + len(blocks))):
            raise CheckpointError(f"blocks {sorted(blocks)} of stage {stage}: some are missing")
    return tuple(len(found[stage]) for stage in sorted(found))


def _classes(shapes: Shapes, layer: str) -> int | None:
    shape = shapes.get(f"{layer}.weight")
    return shape[0] if shape else None


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"{name} is missing beside {_some(shapes)}")
    return tuple(shapes[name])


def _check_arch(found: RecognisedNetwork, arch: str | None) -> None:
    family, _, depth = (arch or "").partition("-")
    if family in _ARCH and f"{_ARCH[family]}{depth}" != found.model:
        raise CheckpointError(f"the file says {arch}, but its tensors are those of {found.model}; expected the same")


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _listed(depths: Iterable[Blocks]) -> str:
    return "; ".join(", ".join(map(str, blocks)) for blocks in depths)


def _own_layer(layer: str, model: str) -> str | None:
    """Our name of a layer of the authors' `model`; None where they have no layer of that name."""
    if layer in ("fc", "classifier"):
        return "head.fc"
    if model.startswith("densenet"):
        return _own_layer_of_densenet(layer)
    if match := re.fullmatch(r"(conv|bn)1(_s|_t)?", layer):
        return f"backbone.stem.{1 if match[2] == '_t' else 0}.{match[1]}"
    if match := re.fullmatch(r"(layer[1-4]\.\d+)\.(downsample\.[01])", layer):
        return f"backbone.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"(layer[1-4]\.\d+)\.(conv|bn)([123](?:_s|_t)?)", layer):
        places = _PLACES.get(model, ("1", "2", "3"))
        if match[3] in places:
            return f"backbone.{match[1]}.block.{_own_layer_in_block(model, places.index(match[3]), match[2])}"
    return None


# What the authors call the convolutions of a block, in order: those over space and over time are _s and _t.
_PLACES = {
    "r2plus1d18": ("1_s", "1_t", "2_s", "2_t"),
    "r2plus1d34": ("1_s", "1_t", "2_s", "2_t"),
    "r2plus1d50": ("1", "2_s", "2_t", "3"),
}


def _own_layer_in_block(model: str, number: int, kind: str) -> str:
    """Our name, inside a block, of its convolution `number` or of the batch norm with that number.

    A convolution and its batch norm are one layer here, but the last ones are two, unless batch norms come first.
    """
    last = 3 if model.startswith("r2plus1d") else 1 if model in ("r3d10", "r3d18", "r3d34") else 2
    if model.startswith("preact") or number < last:
        return f"{number}.{kind}"
    return str(number if kind == "conv" else number + 1)


def _own_layer_of_densenet(layer: str) -> str | None:
    if match := re.fullmatch(r"features\.(conv|norm)[01]", layer):
        return f"backbone.stem.0.{_DENSE_KIND[match[1]]}"
    if match := re.fullmatch(r"features\.denseblock(\d)\.denselayer(\d+)\.(conv|norm)\.?([12])", layer):
        return f"backbone.block{match[1]}.{int(match[2]) - 1}.block.{int(match[4]) - 1}.{_DENSE_KIND[match[3]]}"
    if match := re.fullmatch(r"features\.(transition\d)\.(conv|norm)", layer):
        return f"backbone.{match[1]}.{_DENSE_KIND[match[2]]}"
    return "backbone.norm" if layer == "features.norm5" else None


_DENSE_KIND = {"conv": "conv", "norm": "bn"}

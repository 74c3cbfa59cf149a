"""All models by name, `build_model`, which makes one of them with the user's choices, and `freeze`."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from pipelines.errors import UsageError
from r3d_fast.models.classifier import Architecture, Classifier
from r3d_fast.models.densenet3d import DenseNet
from r3d_fast.models.preact3d import PreActivationResNet
from r3d_fast.models.r2plus1d import R2Plus1D
from r3d_fast.models.resnet3d import ResNet
from r3d_fast.models.resnext3d import ResNeXt
from r3d_fast.models.wide3d import WideResNet

# The numbers of blocks are those of Hara et al. 2018, arXiv:1711.09577, Table 1. Shortcuts: theirs with 18 and 34
# layers have A, all others B. r3d18_reference is the ResNet-18 of justld/3D-ResNets_paddle.
MODELS: dict[str, Architecture] = {
    "r3d18_reference": ResNet((2, 2, 2, 2), padding="SAME", conv_bias=True, project_all=True, init="fan_in"),
    "r3d10": ResNet((1, 1, 1, 1)),
    "r3d18": ResNet((2, 2, 2, 2), shortcut="A"),
    "r3d34": ResNet((3, 4, 6, 3), shortcut="A"),
    "r3d50": ResNet((3, 4, 6, 3), bottleneck=True),
    "r3d101": ResNet((3, 4, 23, 3), bottleneck=True),
    "r3d152": ResNet((3, 8, 36, 3), bottleneck=True),
    "r3d200": ResNet((3, 24, 36, 3), bottleneck=True),
    "preact18": PreActivationResNet((2, 2, 2, 2), shortcut="A"),
    "preact34": PreActivationResNet((3, 4, 6, 3), shortcut="A"),
    "preact50": PreActivationResNet((3, 4, 6, 3), bottleneck=True),
    "preact101": PreActivationResNet((3, 4, 23, 3), bottleneck=True),
    "preact152": PreActivationResNet((3, 8, 36, 3), bottleneck=True),
    "preact200": PreActivationResNet((3, 24, 36, 3), bottleneck=True),
    "wide50": WideResNet((3, 4, 6, 3)),
    "resnext50": ResNeXt((3, 4, 6, 3)),
    "resnext101": ResNeXt((3, 4, 23, 3)),
    "resnext152": ResNeXt((3, 8, 36, 3)),
    "densenet121": DenseNet((6, 12, 24, 16)),
    "densenet169": DenseNet((6, 12, 32, 32)),
    "densenet201": DenseNet((6, 12, 48, 32)),
    "densenet264": DenseNet((6, 12, 64, 48)),
    "r2plus1d18": R2Plus1D((2, 2, 2, 2)),
    "r2plus1d34": R2Plus1D((3, 4, 6, 3)),
    "r2plus1d50": R2Plus1D((3, 4, 6, 3), bottleneck=True),
}


def build_model(
    name: str,
    *,
    num_classes: int = 101,
    shortcut: str | None = None,
    shortcut_gradient: bool = True,
    conv1_t_size: int = 7,
    conv1_t_stride: int = 1,
    max_pool: bool = True,
    stem_factor: int = 1,
    data_format: str = "NCDHW",
    width: int = 64,
    dropout: float = 0.0,
) -> Any:
    """A new model: a `paddle.nn.Layer` from clips float32 [N, 3, T, S, S] to logits float32 [N, num_classes].

    `name` is a key of `MODELS`. `shortcut` is "A", "B" or None for the model's own; without `shortcut_gradient` no
    gradient flows back through A. The stem's kernel spans `conv1_t_size` frames at a stride of `conv1_t_stride`, and a
    max pool follows it if `max_pool`. With `data_format` "NDHWC" the clips are [N, T, S, S, 3]; the weights are the
    same. `width` is the number of channels that those of all layers are in proportion to (64 in the paper); the stem
    has `stem_factor` times as many. `dropout` is the share of the features that are dropped before the last layer, in
    training only. The initial weights come from Paddle's global random generator, so call `paddle.seed` before. Raises
    UsageError for an unknown name or a value that the model can't have.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"model {name!r} is unknown: expected one of {', '.join(MODELS)}{hint}")
    if num_classes < 1:
        raise UsageError(f"num_classes {num_classes}: expected at least 1")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout}: expected 0 <= dropout < 1, the share of features dropped")
    _check_choices(name, shortcut, data_format, width)
    _check_stem(name, conv1_t_size, conv1_t_stride, max_pool, stem_factor)
    architecture = replace(
        MODELS[name], shortcut=shortcut or MODELS[name].shortcut, shortcut_gradient=shortcut_gradient,
        conv1_t_size=conv1_t_size, conv1_t_stride=conv1_t_stride, max_pool=max_pool, stem_factor=stem_factor,
        data_format=data_format, width=width,
    )  # fmt: skip
    return Classifier(architecture, num_classes=num_classes, dropout=dropout)


def _check_choices(name: str, shortcut: str | None, data_format: str, width: int) -> None:
    """Raise UsageError for a choice that the model `name` does not have."""
    architecture = MODELS[name]
    if shortcut not in (None, "A", "B"):
        raise UsageError(f"shortcut {shortcut!r}: expected 'A', 'B' or None (the model's own)")
    if _is_reference(architecture) and shortcut == "A":
        raise UsageError(f"shortcut 'A': {name} has projections in all its blocks; expected 'B' or None")
    if architecture.shortcut is None and shortcut is not None:
        raise UsageError(f"shortcut {shortcut!r}: {name} has no residual blocks; expected None")
    if data_format not in ("NCDHW", "NDHWC"):
        raise UsageError(f"data_format {data_format!r}: expected 'NCDHW' or 'NDHWC'")
    if width < 1:
        raise UsageError(f"width {width}: expected at least 1 channel (64 in the paper)")
    if width % architecture.width_step:
        raise UsageError(f"width {width}: {name} needs a multiple of {architecture.width_step} (64 in the paper)")


def _check_stem(name: str, conv1_t_size: int, conv1_t_stride: int, max_pool: bool, stem_factor: int) -> None:
    """Raise UsageError for a stem that the model `name` does not have."""
    if conv1_t_size < 1 or conv1_t_size % 2 == 0:
        raise UsageError(f"conv1_t_size {conv1_t_size}: expected an odd number of frames (7 in the paper)")
    if conv1_t_stride not in (1, 2):
        raise UsageError(f"conv1_t_stride {conv1_t_stride}: expected 1 or 2 frames (1 in the paper)")
    if _is_reference(MODELS[name]):
        asked = {"conv1_t_size": (conv1_t_size, 7), "conv1_t_stride": (conv1_t_stride, 1), "max_pool": (max_pool, True)}
        for key, (value, own) in asked.items():
            if value != own:
                raise UsageError(
                    f"{key} {value}: {name} has the stem of the reference run; expected {own}, or a model with a "
                    "choice, such as r3d18"
                )
    factors = MODELS[name].stem_factors
    if stem_factor not in factors:
        raise UsageError(
            f"stem_factor {stem_factor}: expected {' or '.join(map(str, factors))}, the channels of the stem of {name} "
            "as a multiple of its width"
        )


def _is_reference(architecture: Architecture) -> bool:
    """Whether this is the model of the reference run, which has no choices."""
    return isinstance(architecture, ResNet) and architecture.project_all


def freeze(model: Any, until: str, *, statistics: str = "eval") -> None:
    """Exclude the parts of `model` before the part `until` from training: they get no gradients.

    `statistics`: "eval" if their batch norms stay in evaluation mode, "train" if they go on as those of the other
    parts: they normalise by the statistics of the batch and keep averages of these. The parts of a ResNet are stem,
    layer1 to layer4 and head; those of a DenseNet are stem, block1, transition1, .., block4, norm and head, and layer1
    to layer4 mean its blocks. Raises UsageError for any other name.
    """
    parts = {name: part for name, part in model.backbone.named_children() if part.parameters()}
    parts["head"] = model.head
    first = until if until in parts else _OF_DENSENET.get(until, until)
    if first not in parts:
        near = get_close_matches(until, parts, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"init.freeze_until {until!r}: no such part; expected one of {', '.join(parts)}{hint}")
    frozen = list(parts.values())[: list(parts).index(first)]
    for parameter in (parameter for part in frozen for parameter in part.parameters()):
        parameter.stop_gradient = True
    model.frozen = tuple(frozen) if statistics == "eval" else ()


# Names that a DenseNet's parts also have, so that one config fits all families. The authors' ft_begin_index 4 means
# layer4 and fc of a ResNet, and denseblock4, norm5 and classifier of a DenseNet (CVPR2018, models/densenet.py).
_OF_DENSENET = {f"layer{number}": f"block{number}" for number in (1, 2, 3, 4)}

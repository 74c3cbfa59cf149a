"""The models by name: one dict of architectures, `build_model`, which fills in the user's choices, and `freeze`."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from pipelines.errors import UsageError
from r3d_fast.models.resnet3d import Architecture, ResNet3D

# Depths: Hara et al. 2018, arXiv:1711.09577, Table 1. Shortcuts: the authors' first weights of 18 and 34 layers have A,
# all others B. r3d18_reference: the ResNet-18 of justld/3D-ResNets_paddle.
MODELS: dict[str, Architecture] = {
    "r3d18_reference": Architecture(
        blocks=(2, 2, 2, 2), shortcut="B", padding="SAME", conv_bias=True, project_all=True, init="fan_in"
    ),
    "r3d10": Architecture(blocks=(1, 1, 1, 1), shortcut="B"),
    "r3d18": Architecture(blocks=(2, 2, 2, 2), shortcut="B"),
    "r3d34": Architecture(blocks=(3, 4, 6, 3), shortcut="A"),
}


def build_model(
    name: str,
    *,
    num_classes: int = 101,
    shortcut: str | None = None,
    data_format: str = "NCDHW",
    width: int = 64,
    dropout: float = 0.0,
) -> Any:
    """A new `paddle.nn.Layer` from clips float32 [N, 3, T, S, S] to logits float32 [N, num_classes].

    `name` is a key of `MODELS`. `shortcut` is "A" or "B", None the model's own. With `data_format` "NDHWC" the clips
    are [N, T, S, S, 3] and the weights the same. `width` is the number of channels of the stem (64 in the paper), from
    which all others follow. `dropout` is the share of features dropped before the last layer, in training only. The
    weights are drawn from Paddle's global generator: call `paddle.seed` before.
    Raises UsageError for an unknown name or a value out of its range.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"model {name!r} is unknown: expected one of {', '.join(MODELS)}{hint}")
    architecture = MODELS[name]
    if shortcut not in (None, "A", "B"):
        raise UsageError(f"shortcut {shortcut!r}: expected 'A', 'B' or None (the model's own)")
    if architecture.project_all and shortcut == "A":
        raise UsageError(f"shortcut 'A': {name} has projections in all its blocks; expected 'B' or None")
    if data_format not in ("NCDHW", "NDHWC"):
        raise UsageError(f"data_format {data_format!r}: expected 'NCDHW' or 'NDHWC'")
    if width < 1:
        raise UsageError(f"width {width}: expected at least 1 channel (64 in the paper)")
    if num_classes < 1:
        raise UsageError(f"num_classes {num_classes}: expected at least 1")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout}: expected 0 <= dropout < 1, the share of features dropped")
    chosen = replace(architecture, shortcut=shortcut or architecture.shortcut, data_format=data_format, width=width)
    return ResNet3D(chosen, num_classes=num_classes, dropout=dropout)


def freeze(model: Any, until: str) -> None:
    """Keep the parts of `model` before part `until` as they are: no gradients, batch norms in evaluation mode.

    Parts are those of the backbone that have parameters, and the head: stem, layer1 .. layer4, head. Raises UsageError
    for any other name.
    """
    parts = {name: part for name, part in model.backbone.named_children() if part.parameters()}
    parts["head"] = model.head
    if until not in parts:
        near = get_close_matches(until, parts, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"train.freeze_until {until!r}: no such part; expected one of {', '.join(parts)}{hint}")
    frozen = list(parts.values())[: list(parts).index(until)]
    for parameter in (parameter for part in frozen for parameter in part.parameters()):
        parameter.stop_gradient = True
    model.frozen = tuple(frozen)

"""What each model costs: parameters, multiply-adds and training memory, calculated from shapes without running it.

`cost_table.py` has these figures for the usual clip, where they can be read without Paddle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from r3d_fast.backend.paddle import Operation, describe_forward
from r3d_fast.models.architectures import MODELS, build_model
from r3d_fast.models.cost_table import BATCH, FLOAT32_BYTES, MIB, ModelSummary

# The tensors of the forward pass that an operation's gradient needs, by the names of Paddle's slots. The gradients of
# other operations need shapes only.
_KEPT = {
    "conv3d": ("Input",),
    "batch_norm": ("X",),
    "relu": ("Out",),
    "pool3d": ("X", "Out"),
    "matmul_v2": ("X",),
}

_DETACH = "share_data"


def summarise(
    name: str,
    *,
    num_classes: int = 101,
    frames: int = 16,
    size: int = 112,
    **choices: Any,
) -> ModelSummary:
    """The cost of the model `name`, built with `choices`, which are arguments of `build_model`.

    Raises UsageError for an unknown name or a value out of its range.
    """
    build = partial(build_model, name, num_classes=num_classes, **choices)
    made: list[Any] = []

    def remember() -> Any:
        made.append(build())
        return made[0]

    operations = describe_forward(remember, (BATCH, 3, frames, size, size))
    parameters = sum(math.prod(parameter.shape) for parameter in made[0].parameters() if parameter.trainable)
    architecture = made[0].architecture
    held = 3 * parameters + _kept_values(operations)
    return ModelSummary(
        name=name,
        shortcut=architecture.shortcut,
        parameters=parameters,
        gmac=sum(map(_multiply_adds, operations)) / BATCH / 1e9,
        memory_mib=held * FLOAT32_BYTES / MIB,
        features=architecture.features,
    )


def summarise_all(*, num_classes: int = 101, frames: int = 16, size: int = 112) -> Iterator[ModelSummary]:
    """Yields the cost of each model, in the order of `MODELS`. Each takes about half a second."""
    return (summarise(name, num_classes=num_classes, frames=frames, size=size) for name in MODELS)


def _multiply_adds(operation: Operation) -> int:
    """The multiply-adds of a convolution or a linear layer, for all clips together; 0 for other operations."""
    if operation.kind == "conv3d":
        return _values(operation, "Output") * math.prod(operation.inputs["Filter"][1][1:])
    if operation.kind == "matmul_v2":
        return _values(operation, "Out") * operation.inputs["X"][1][-1]
    return 0


def _values(operation: Operation, slot: str) -> int:
    """The number of values in the tensor of a slot."""
    return math.prod((operation.inputs | operation.outputs)[slot][1])


def _kept_values(operations: Iterable[Operation]) -> int:
    """How many values of the forward pass are kept for the backward pass, for the whole batch."""
    kept: dict[str, int] = {}
    cut: set[str] = set()  # tensors that no gradient flows back through; only a pool, which has no weights, takes them
    for operation in operations:
        if operation.kind == _DETACH:
            cut.add(operation.outputs["Out"][0])
        if operation.kind == "pool3d" and operation.inputs["X"][0] in cut:
            continue
        for slot in _KEPT.get(operation.kind, ()):
            name = (operation.inputs | operation.outputs)[slot][0]
            kept[name] = _values(operation, slot)
    return sum(kept.values())

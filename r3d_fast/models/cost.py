"""What each model costs: parameters, multiply-adds and training memory, calculated from shapes without running it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from r3d_fast.backend.paddle import Operation, describe_forward
from r3d_fast.models.architectures import MODELS, build_model

BATCH = 8
_FLOAT32 = 4  # bytes
_MIB = 2**20
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

MEMORY_NOTE = (
    f"memory: for a training step in float32 with {BATCH} clips: weights, gradients, momentum, and the activations "
    "that the backward pass needs; calculated, without the workspace of libraries"
)


@dataclass(frozen=True)
class ModelSummary:
    """What a model costs on clips of shape [3, frames, size, size].

    `gmac`: multiply-adds of convolutions and linear layers for one clip, in 10^9. `memory_mib`: see MEMORY_NOTE.
    """

    name: str
    shortcut: str | None
    parameters: int
    gmac: float
    memory_mib: float
    features: int

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


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
        memory_mib=held * _FLOAT32 / _MIB,
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


def table_lines(summaries: Iterable[ModelSummary]) -> Iterator[str]:
    """Yields the lines of a table: its head, a line per model as each summary comes, and notes on the columns."""
    head = ("model", "shortcut", "parameters (M)", "GMAC per clip", f"memory at {BATCH} (MiB)", "features")
    widths = [max(map(len, MODELS)), *map(len, head[1:])]

    def line(cells: Sequence[str]) -> str:
        left, right = cells[:2], cells[2:]
        padded = [cell.ljust(width) for cell, width in zip(left, widths[:2], strict=True)]
        return "  ".join([*padded, *(cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True))])

    yield line(head)
    for s in summaries:
        figures = (f"{s.parameters / 1e6:.2f}", f"{s.gmac:.2f}", f"{s.memory_mib:.0f}", str(s.features))
        yield line((s.name, s.shortcut or "-", *figures))
    yield from ("", "GMAC: 10^9 multiply-adds of convolutions and linear layers", MEMORY_NOTE)

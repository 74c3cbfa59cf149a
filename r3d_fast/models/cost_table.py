"""The table of what each model costs: kept in costs.json for the usual clip, so that it is there without Paddle.

cost.py calculates the figures; `make docs` writes them again where a model has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

BATCH = 8
FLOAT32_BYTES = 4
MIB = 2**20
COSTS = Path(__file__).with_name("costs.json")
USUAL = {"classes": 101, "frames": 16, "size_px": 112}  # what the figures in costs.json are for
_USUAL_WIDTH = 64

MEMORY_NOTE = (
    f"memory: for a training step in float32 with {BATCH} clips: weights, gradients, momentum, and the activations "
    "that the backward pass needs; calculated, without the workspace of libraries; on a CPU `train` takes about "
    "1.3 GiB and 2.6 times that in all"
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


def stored_summaries(classes: int = USUAL["classes"]) -> list[ModelSummary]:
    """The cost of each model on the usual clip, with a last layer for so many `classes`."""
    stored = json.loads(COSTS.read_text(encoding="utf-8"))
    return [_with_classes(ModelSummary(**values), classes - USUAL["classes"]) for values in stored["models"]]


def estimated_parameters(name: str, classes: int, width: int, stem_factor: int = 1) -> float:
    """About how many parameters the model `name` has, within a factor of two, without building it.

    Those of convolutions are in proportion to the square of `width`, and those of the last layer to `width`.
    """
    usual = next(summary for summary in stored_summaries(classes=0) if summary.name == name)
    scale = stem_factor * width / _USUAL_WIDTH
    return scale * (scale * usual.parameters + (usual.features + 1) * classes)


def _with_classes(summary: ModelSummary, more: int) -> ModelSummary:
    """`summary` of the same model with so many classes `more`: only its last layer is another."""
    weights = (summary.features + 1) * more  # one of them is the bias
    held = 3 * weights * FLOAT32_BYTES / MIB  # weights, gradients, momentum
    return replace(
        summary,
        parameters=summary.parameters + weights,
        gmac=summary.gmac + summary.features * more / 1e9,
        memory_mib=summary.memory_mib + held,
    )


def costs_text(summaries: Iterable[ModelSummary]) -> str:
    """The text of costs.json with these `summaries`, which are for the usual clip."""
    return json.dumps({**USUAL, "models": [summary.as_json() for summary in summaries]}, indent=1) + "\n"


def table_lines(summaries: Iterable[ModelSummary]) -> Iterator[str]:
    """Yields the lines of a table: its head, a line per model as each summary comes, and notes on the columns."""
    head = ("model", "shortcut", "parameters (M)", "GMAC per clip", f"memory at {BATCH} (MiB)", "features")
    widths = [max(len(summary.name) for summary in stored_summaries()), *map(len, head[1:])]

    def line(cells: Sequence[str]) -> str:
        left, right = cells[:2], cells[2:]
        padded = [cell.ljust(width) for cell, width in zip(left, widths[:2], strict=True)]
        return "  ".join([*padded, *(cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True))])

    yield line(head)
    for s in summaries:
        figures = (f"{s.parameters / 1e6:.2f}", f"{s.gmac:.2f}", f"{s.memory_mib:.0f}", str(s.features))
        yield line((s.name, s.shortcut or "-", *figures))
    yield from ("", "GMAC: 10^9 multiply-adds of convolutions and linear layers", MEMORY_NOTE)

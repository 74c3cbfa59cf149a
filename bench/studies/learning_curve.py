"""Learning curves: what a training had learned at each evaluation, and how far those of several seeds lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r3d_fast.console import tell
from r3d_fast.runs.history import read_history

FIGURES = ("top1", "test loss", "train loss")  # of each point of a curve
Point = dict[str, Any]
Curve = list[Point]


def read_records(run: Path) -> list[dict[str, Any]]:
    """The records in metrics.jsonl of the folder `run`. What the file lacks is said on stderr."""
    history = read_history(run)
    if history.lost:
        tell(f"warning: {run}: {history.lost}")
    return list(history.records)


def learning_curve(records: Iterable[Mapping[str, Any]]) -> Curve:
    """A point an evaluation of a run, given the records of its metrics.jsonl.

    It has `epoch` and `step`, `seconds` (of training up to there, without evaluations), `train loss` (mean of the steps
    since the last evaluation), and `test loss` and `top1` of the evaluated videos. A loss that was no number is None.
    """
    curve: Curve = []
    losses: list[float | None] = []
    seconds = 0.0
    for record in records:
        if record["kind"] == "train":
            seconds += record["seconds"]
            losses.append(record["loss"])
        elif record["kind"] == "eval":
            curve.append(
                {
                    "epoch": record["epoch"],
                    "step": record["step"],
                    "seconds": round(seconds, 2),
                    "train loss": _mean(losses),
                    "test loss": record["loss"],
                    "top1": record["top1"],
                }
            )
            losses = []
    return curve


def _mean(losses: Sequence[float | None]) -> float | None:
    numbers = [loss for loss in losses if loss is not None]
    return statistics.fmean(numbers) if numbers and len(numbers) == len(losses) else None


def spread_of(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation (None of one value), lowest and highest of `values`, one a seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "low": min(values), "high": max(values)}


def told_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the lowest value of one lies above the highest of the other: their ranges do not overlap."""
    return min(one) > max(other) or min(other) > max(one)


def chance_of_telling_apart(seeds: int) -> float:
    """How often `told_apart` says so of two times `seeds` values that differ by chance alone.

    Of the orders in which 2n values can lie, all equally likely, two have those of one side first.
    """
    return 2 / math.comb(2 * seeds, seeds)


def compared(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """How the values of `other` differ from those of `one`, seed by seed: JSON values."""
    differences = [b - a for a, b in zip(one, other, strict=True)]
    return {
        "differences by seed": differences,
        "mean difference": statistics.fmean(differences),
        "told apart": told_apart(one, other),
    }

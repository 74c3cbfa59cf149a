"""The most likely classes of a clip or a video, with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UsageError

TopClasses = tuple[tuple[str, float], ...]


def likeliest(classes: Sequence[str], probabilities: NDArray[np.float64], top: int) -> TopClasses:
    """The `top` most likely classes as (class, probability) pairs, most likely first; `probabilities` float64 [C]."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((classes[i], float(probabilities[i])) for i in best)


def top_classes_json(classes: TopClasses) -> list[dict[str, Any]]:
    """(class, probability) pairs as JSON values."""
    return [{"class": name, "probability": probability} for name, probability in classes]


def check_top(top: object) -> None:
    """Raise UsageError if `top` is no whole number, or below 1."""
    check_count("top", top)


def check_count(name: str, value: object) -> None:
    """Raise UsageError, which begins with `name`, if `value` is no whole number, or below 1."""
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise UsageError(f"{name} {value}: expected a whole number, at least 1")

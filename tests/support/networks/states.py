"""Collects everything that a training step may change, and compares two such states."""

from __future__ import annotations

from typing import Any

import numpy as np

from r3d_fast.backend.precision import float32_weights
from r3d_fast.learning.optimizer import moments
from r3d_fast.learning.step import TrainStep


def everything(step: TrainStep) -> dict[str, Any]:
    """The weights, half weights, running statistics and moments of a step, by name."""
    weights = {f"weights {key}": value.numpy() for key, value in float32_weights(step.model).items()}
    stored = {f"stored {key}": value.astype("float32").numpy() for key, value in step.model.state_dict().items()}
    return {**weights, **stored, **moments(step.model, step.optimizer)}


def assert_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key], err_msg=key)

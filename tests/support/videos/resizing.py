"""Resizing as the graph of the loader does it, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def triangle(size: int, out: int) -> NDArray[np.float64]:
    """The weights [out, size] of antialiased bilinear resizing: triangles as wide as the step, edge pixels repeated."""
    step = size / out
    radius = max(step, 1.0)
    weights = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * step
        for k in range(int(centre - radius) - 1, int(centre + radius) + 2):
            weights[i, min(max(k, 0), size - 1)] += max(0.0, 1.0 - abs(k + 0.5 - centre) / radius)
    return weights / weights.sum(axis=1, keepdims=True)

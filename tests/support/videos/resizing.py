"""Resizing and cropping as the graph of the loader does it, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.sampler import ClipPlan
from pipelines.specs import AugmentSpec


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


def planned_clip(frames: NDArray[np.uint8], plan: ClipPlan, spec: AugmentSpec) -> NDArray[np.float64]:
    """The clip that a plan makes of its whole frames, uint8 [T, H, W, 3]: float64 [T, S, S, 3]."""
    y, x, h, w = plan.box
    rows, columns = triangle(h, plan.resized[0]), triangle(w, plan.resized[1])
    part = frames[:, y : y + h, x : x + w].astype(float)
    resized = np.einsum("ih,thwc,jw->tijc", rows, part, columns, optimize=True)
    top, left = plan.window
    seen = resized[:, top : top + spec.size_px, left : left + spec.size_px]
    if plan.mirror:
        seen = seen[:, :, ::-1]
    return (seen * (spec.value_max / 255.0) - np.array(spec.mean)) / np.array(spec.std)

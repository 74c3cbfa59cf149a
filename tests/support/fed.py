"""Batches of noise, and the same as a step takes them."""

from __future__ import annotations

import numpy as np

from pipelines.loader import Batch
from r3d_fast.backend.feed import Fed, feed


def a_batch(rows: int = 4, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(rows, 3, 4, 16, 16)).astype(np.float32)
    return Batch(clips, np.arange(rows) % 4, np.arange(rows), np.ones(rows, bool), 0, rows, ())


def a_fed(rows: int = 4, seed: int = 0) -> Fed:
    return feed(a_batch(rows, seed), "cpu")

"""Batches of random noise, also in the form that a training step takes."""

from __future__ import annotations

import numpy as np

from pipelines.loader import Batch
from r3d_fast.backend.feed import DeviceBatch, feed

# Paddle's message when a GPU has no memory left.
GPU_TEXT = (
    "\n\n--------------------------------------\nC++ Traceback (most recent call last):\n"
    "--------------------------------------\nNot support stack backtrace yet.\n\n----------------------\n"
    "Error Message Summary:\n----------------------\nResourceExhaustedError: \n\nOut of memory error on GPU 0. "
    "Cannot allocate 392.000000MB memory on GPU 0, 15.600000GB memory has been allocated and available memory is only "
    "81.500000MB.\n\nPlease check whether there is any other process using GPU 0.\n1. If yes, please stop them, or "
    "start PaddlePaddle on another GPU.\n2. If no, please decrease the batch size of your model. \n"
)


def a_batch(rows: int = 4, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(rows, 3, 4, 16, 16)).astype(np.float32)
    return Batch(clips, np.arange(rows) % 4, np.arange(rows), np.ones(rows, bool), 0, rows, ())


def a_fed(rows: int = 4, seed: int = 0) -> DeviceBatch:
    return feed(a_batch(rows, seed), "cpu")

"""Random numbers that are the same for the same key (such as seed, epoch and position) with every version of NumPy.

They are made from the raw 64-bit words of the Philox generator, since NumPy's distributions may change between
versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_words(count: int, *key: int) -> NDArray[np.uint64]:
    """Uniform random 64-bit words, uint64 [count]: always the same for the same `key`, on every machine."""
    return np.atleast_1d(np.random.Philox(np.random.SeedSequence(list(key))).random_raw(count))


def below(words: NDArray[np.uint64], limit: int) -> NDArray[np.int64]:
    """Uniform integers 0..limit-1 made from random words: their high 32 bits, scaled (bias < 1e-5 below 40,000)."""
    scaled: NDArray[np.uint64] = ((words >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)
    return scaled.astype(np.int64)


def between(words: NDArray[np.uint64], low: float, high: float) -> NDArray[np.float64]:
    """Uniform numbers from `low` to `high` made from random words: their high 53 bits, scaled."""
    scaled: NDArray[np.float64] = low + (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * (high - low)
    return scaled

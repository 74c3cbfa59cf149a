"""How a very large index opens and shuffles.

Run as a process, so that its memory is seen alone: it prints its figures as JSON.
"""

from __future__ import annotations

import json
import sys
from statistics import median
from time import perf_counter
from typing import Any

from pipelines.machine.processes import own_memory

_OPENINGS, _EPOCHS, _PLANS, _LOOKUPS = 5, 10, 10_000, 1000


def open_and_shuffle(path: str) -> dict[str, Any]:
    """Figures of the index at `path`: seconds to open and to shuffle, clips planned a second, memory in MiB."""
    # Imported before memory is first looked at: what imports take is no part of the index.
    import numpy as np

    from pipelines.index.video_index import VideoIndex
    from pipelines.sampler import ClipSampler
    from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

    start = _own_mib()
    opening = []
    for _ in range(_OPENINGS):
        begin = perf_counter()
        index = VideoIndex.open(path)
        opening.append(perf_counter() - begin)
    sampler = ClipSampler(index.columns(), ClipSpec(), AugmentSpec(), seed=0, train=True, shard=ShardSpec())
    opened = _own_mib()
    shuffling, held = [], []
    for epoch in range(_EPOCHS):
        begin = perf_counter()
        order = sampler.order(epoch)
        shuffling.append(perf_counter() - begin)
        assert np.array_equal(np.sort(order), np.arange(len(index)))
        held.append(_own_mib())
    begin = perf_counter()
    for position in range(_PLANS):
        sampler.plan(_EPOCHS - 1, position)
    planning = _PLANS / (perf_counter() - begin)
    for video in range(0, len(index), len(index) // _LOOKUPS):
        index[video]
    return {
        "seconds to open it": {"median": median(opening), "low": min(opening), "high": max(opening)},
        "seconds to shuffle an epoch": {"median": median(shuffling), "low": min(shuffling), "high": max(shuffling)},
        "clips planned a second": round(planning),
        "MiB of it open, sampler included": round(opened - start, 1),
        "MiB that ten epochs and 1,000 look-ups add": round(_own_mib() - max(held[:2]), 1),
    }


def _own_mib() -> float:
    return own_memory() / 2**20


if __name__ == "__main__":
    print(json.dumps(open_and_shuffle(sys.argv[1])))

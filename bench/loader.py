"""How many clips a second the loader gives."""

from __future__ import annotations

import time
from pathlib import Path

from pipelines.index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import ClipSpec, LoaderSpec


def measure(index: Path, *, sampling: str, workers: int | None, repeats: int) -> list[float]:
    """Clips per second of `repeats` training epochs after one that warms up, lowest first.

    Raises IndexFileError for a bad index, DataError for one without a training split.
    """
    clip = ClipSpec.model_validate({"sampling": sampling})
    spec = LoaderSpec(batch_size=16, workers="auto" if workers is None else workers)
    rates = []
    with ClipLoader(VideoIndex.open(index), clip=clip, loader=spec) as loader:
        for epoch in range(repeats + 1):
            start, clips = time.perf_counter(), 0
            for batch in loader.epoch(epoch):
                clips += len(batch.labels)
            if epoch:
                rates.append(clips / (time.perf_counter() - start))
    return sorted(rates)

"""How long a fresh Python takes to the first batch, imports and the start of the workers included.

Run as a process: it prints the seconds since it began.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex

_BEGIN = time.perf_counter()
_TRIES = 5


def first_batch_seconds(index: VideoIndex, batch_size: int, workers: int, device: str) -> dict[str, float]:
    """Median, low and high of a few tries, in seconds, of a loader that trains on the videos of `index`.

    Raises EnvironmentProblem where a try fails.
    """
    from bench.measuring.fresh_python import output_of

    arguments = (index.path, index.root, batch_size, workers, device)
    seconds = [float(output_of("bench.loader.first_batch", *arguments)) for _ in range(_TRIES)]
    return {"median": median(seconds), "low": min(seconds), "high": max(seconds)}


def _load_first_batch(path: str, root: str, batch_size: str, workers: str, device: str) -> None:
    from pipelines.index.video_index import VideoIndex
    from pipelines.loader import ClipLoader
    from pipelines.specs import LoaderSpec

    spec = LoaderSpec(batch_size=int(batch_size), workers=int(workers))
    with ClipLoader(VideoIndex.open(path, root), loader=spec, split=None, train=True, device=device) as loader:
        next(iter(loader))
        print(time.perf_counter() - _BEGIN)


if __name__ == "__main__":
    _load_first_batch(*sys.argv[1:])

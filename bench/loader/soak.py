"""`bench loader soak`: memory and open files of the loader over many clips, and what of it grows."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench.measuring.turns import Say
from bench.reporting.results import StudyReport, study_report
from bench.videos.selection import selected_videos
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.machine.processes import open_files, own_memory
from pipelines.specs import LoaderSpec

_SAMPLES = 200


def measure_soak(data: Path | None, clips: int, workers: int, command: str, say: Say) -> StudyReport:
    """A report of a loader that makes `clips` clips, training on all videos of `data` (None: bench's own)."""
    with selected_videos(data, say) as chosen:
        figures = _soak(chosen.index, clips, workers, say)
    return study_report("loader soak", command, figures)


def _soak(index: VideoIndex, clips: int, workers: int, say: Say) -> dict[str, Any]:
    """Figures of that loader.

    Growth is the slope of a line through the anonymous memory of each process (shared memory is a fixed arena), after
    the first fifth, in which caches fill.
    """
    size = min(16, len(index))
    memory: list[list[float]] = []
    files: list[list[int]] = []
    made: list[int] = []
    begin = perf_counter()
    with ClipLoader(index, loader=LoaderSpec(batch_size=size, workers=workers), split=None, train=True) as loader:
        done = 0
        for batch in (batch for _ in count() for batch in loader):
            done += len(np.from_dlpack(batch.clips))
            if done >= len(made) * clips / _SAMPLES:
                pids = [os.getpid(), *loader.worker_pids]
                memory.append([round(own_memory(pid) / 2**20, 2) for pid in pids])
                files.append([open_files(pid) for pid in pids])
                made.append(done)
                if len(made) % 20 == 0:
                    say(f"{done} of {clips} clips")
            if done >= clips:
                break
    seconds = perf_counter() - begin
    rest = slice(_SAMPLES // 5, None)
    slopes = [1000 * float(np.polyfit(made[rest], column[rest], 1)[0]) for column in np.array(memory).T]
    opened = np.array(files)
    return {
        "clips": done,
        "workers": workers,
        "seconds": round(seconds, 1),
        "memory growth, MB per 1,000 clips": {
            "main process": round(slopes[0], 4), "workers": [round(slope, 4) for slope in slopes[1:]],
        },
        "memory at the end, MiB": {"main process": memory[-1][0], "workers": memory[-1][1:]},
        "open files, lowest to highest": {
            "main process": [int(opened[:, 0].min()), int(opened[:, 0].max())],
            "a worker (one more while it reads a video)": [int(opened[:, 1:].min()), int(opened[:, 1:].max())],
        },
    }  # fmt: skip

"""What grows: memory and open files of the loader over many clips, time and memory of a very large index."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from bench.measuring.machine import commit, describe
from bench.videos.selection import open_clips
from bench.videos.synthesis import make_clips
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.machine.processes import open_files, own_memory
from pipelines.specs import LoaderSpec

Say = Callable[[str], None]
_OWN_CLIPS = 64
_PASSES = 5
_SAMPLES = 200
_COLUMNS = ("id", "label", "split", "num_frames", "height", "width")


def soak(data: Path | None, clips: int, workers: int, command: str, say: Say) -> dict[str, Any]:
    """Figures of a loader that makes `clips` clips, training on all videos of `data` (None: bench's own).

    Growth is the slope of a line through the anonymous memory of each process (shared memory is a fixed arena), after
    the first fifth, in which caches fill.
    """
    with tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as name:
        index = open_clips(_root(data, Path(name), say), Path(name)).index
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
        **_head("loader soak", command),
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


def measure_index(data: Path | None, videos: int, command: str, say: Say) -> dict[str, Any]:
    """Figures of indexing the files of `data` (None: bench's own) and of an index of `videos` rows made from them."""
    with tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as name:
        folder = Path(name)
        root = _root(data, folder, say)
        rates = []
        for number in range(_PASSES):
            begin = process_time()
            small = VideoIndex.build(root, val_fraction=0.0, index=folder / f"{number}.r3dindex", workers=1)
            rates.append((len(small) + len(small.quarantined)) / (process_time() - begin))
        say(f"making an index of {videos} rows")
        large = folder / "large.r3dindex"
        _multiply(small, large, videos)
        paths = json.dumps([path or os.getcwd() for path in sys.path])  # noqa: PTH109 - a string is wanted
        say("opening and shuffling it")
        done = subprocess.run(
            [sys.executable, "-c", _OPEN_AND_SHUFFLE, str(large), paths], capture_output=True, text=True, check=True
        )
    return {
        **_head("index", command),
        "files": len(small),
        "files per CPU second": {
            "median": round(median(rates)), "low": round(min(rates)), "high": round(max(rates)), "passes": _PASSES,
        },
        "rows of the large index": videos,
        **json.loads(done.stdout),
    }  # fmt: skip


# In a process of its own: its memory is to be seen alone.
_OPEN_AND_SHUFFLE = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[2])
from statistics import median
import numpy as np
from pipelines import AugmentSpec, ClipSpec, ShardSpec, VideoIndex
from pipelines.machine.processes import own_memory
from pipelines.sampler import ClipSampler

def memory():
    return own_memory() / 2**20

start = memory()
opening = []
for _ in range(5):
    begin = time.perf_counter()
    index = VideoIndex.open(sys.argv[1])
    opening.append(time.perf_counter() - begin)
columns = index.columns()
sampler = ClipSampler(columns, ClipSpec(), AugmentSpec(), seed=0, train=True, shard=ShardSpec())
opened = memory()
shuffling, held = [], []
for epoch in range(10):
    begin = time.perf_counter()
    order = sampler.order(epoch)
    shuffling.append(time.perf_counter() - begin)
    assert np.array_equal(np.sort(order), np.arange(len(index)))
    held.append(memory())
begin = time.perf_counter()
for position in range(10000):
    sampler.plan(9, position)
planning = 10000 / (time.perf_counter() - begin)
for video in range(0, len(index), len(index) // 1000):
    index[video]
print(json.dumps({
    "seconds to open it": {"median": median(opening), "low": min(opening), "high": max(opening)},
    "seconds to shuffle an epoch": {"median": median(shuffling), "low": min(shuffling), "high": max(shuffling)},
    "clips planned a second": round(planning),
    "MiB of it open, sampler included": round(opened - start, 1),
    "MiB that ten epochs and 1,000 look-ups add": round(memory() - max(held[:2]), 1),
}))
"""


def _multiply(small: VideoIndex, path: Path, videos: int) -> None:
    """Make `path` an index of `videos` rows: those of `small`, over and over, without their packet tables."""
    shutil.copy(small.path, path)
    copies = -(-videos // len(small))
    with closing(sqlite3.connect(path)) as db, db:
        fields = [row[1] for row in db.execute("PRAGMA table_info(videos)") if row[1] not in ("id", "path", "packets")]
        db.execute("PRAGMA synchronous = OFF")
        db.execute(
            f"WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {copies - 1}) "
            f"INSERT INTO videos (path, packets, {', '.join(fields)}) "
            f"SELECT path || '#' || k, x'', {', '.join(fields)} FROM videos, n LIMIT {videos - len(small)}"
        )
        rows = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM videos ORDER BY path")
        table = np.array([(i, label, 0, *rest) for i, label, _, *rest in rows], np.int32)
        for number, name in enumerate(_COLUMNS):
            blob = np.ascontiguousarray(table[:, number]).tobytes()
            db.execute("UPDATE columns SET data = ? WHERE name = ?", (blob, "rowid" if name == "id" else name))


def _root(data: Path | None, folder: Path, say: Say) -> Path:
    if data is not None:
        return data
    say(f"making {_OWN_CLIPS} clips of 320x240")
    make_clips(folder / "clips", _OWN_CLIPS)
    return folder / "clips"


def _head(kind: str, command: str) -> dict[str, Any]:
    return {
        "kind": kind, "command": command, "commit": commit(Path(__file__).parent), "machine": describe().in_words(),
    }  # fmt: skip

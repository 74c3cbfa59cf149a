"""Loads many clips in a process of its own, and prints what memory and files it and its workers took meanwhile.

`python -m soak.many_clips INDEX decoder` does so, with the resizing that is named: a test process holds what earlier
tests have left, which comes and goes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec

EPOCHS, EVERY = 500, 10


def resident_mib(pid: int) -> float:
    """Memory of a process that belongs to it alone, in MiB, so that neither shared clips nor libraries count."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no RssAnon")


def main(index: str, resize: str) -> None:
    """Print as JSON, for every tenth epoch, MiB of memory and open files of this process and of each worker."""
    clip = ClipSpec(num_frames=4)  # small clips: DALI holds now more, now fewer batches, which must not hide a leak
    augment = AugmentSpec.model_validate({"size_px": 16, "resize": resize})
    spec = LoaderSpec(batch_size=16, workers=2)
    grown, opened = [], []
    with ClipLoader(VideoIndex(index), clip=clip, augment=augment, loader=spec, split=None, train=True) as loader:
        for step in range(EPOCHS):
            for batch in loader:
                assert np.from_dlpack(batch.clips).shape == (16, 3, 4, 16, 16)
            if step % EVERY == EVERY - 1:
                pids = [os.getpid(), *loader.worker_pids]
                grown.append([resident_mib(pid) for pid in pids])
                opened.append([len(os.listdir(f"/proc/{pid}/fd")) for pid in pids])
    print(json.dumps([grown, opened]))


if __name__ == "__main__":
    main(*sys.argv[1:])

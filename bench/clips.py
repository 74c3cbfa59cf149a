"""The videos that a measurement is made on: an index of those that can be read, and what was left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np

from pipelines.datasets import recognise
from pipelines.decode import FrameReader
from pipelines.errors import DataError, R3DFastError
from pipelines.index import VideoIndex, write_index
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec


@dataclass(frozen=True)
class Clips:
    """`index` of the videos to read, `excluded` ({path, reason}) of the others."""

    index: VideoIndex
    excluded: tuple[dict[str, str], ...]
    index_files_per_cpu_second: float


def open_clips(root: Path, folder: Path) -> Clips:
    """The videos under `root`; their index lies in `folder`, so that nothing is left at `root`.

    A video that can't be indexed, or of which one clip of either sampling can't be read, is excluded. Raises DataError
    where nothing is left.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with videos, or no --data: bench makes its own clips")
    data = recognise(root, val_fraction=0.0)
    begin = process_time()
    index = write_index(folder / "clips.r3dindex", root, data, workers=1)
    rate = len(data.entries) / max(process_time() - begin, 1e-9)
    excluded = {item.path: item.reason for item in index.quarantined} | unreadable(index)
    if len(excluded) >= len(data.entries):
        first = next(iter(excluded.items()), ("", ""))
        raise DataError(f"{root}: none of the {len(data.entries)} videos can be read; first: {first[0]}: {first[1]}")
    kept = replace(data, entries=tuple(entry for entry in data.entries if entry.path not in excluded))
    index = write_index(folder / "clips.r3dindex", root, kept, workers=1)
    return Clips(index, tuple({"path": path, "reason": excluded[path]} for path in sorted(excluded)), rate)


def unreadable(index: VideoIndex) -> dict[str, str]:
    """The videos of which a clip can't be read, by path, and why."""
    reader, bad = FrameReader(), {}
    if len(index) == 0:
        return {}
    for sampling in ("segments", "consecutive"):
        clip = ClipSpec.model_validate({"sampling": sampling})
        sampler = ClipSampler(index.columns(), clip, AugmentSpec(), seed=0, train=True, shard=ShardSpec())
        for position in range(sampler.num_clips):
            plan = sampler.plan(0, position)
            record = index[plan.video_id]
            try:
                reader.read(record, plan.frames, root=str(index.root), box=(0, 0, 1, 1))
            except R3DFastError as error:
                bad[record.path] = str(error).removeprefix(os.path.join(index.root, record.path) + ": ")  # noqa: PTH118
    return bad


def median_frames(index: VideoIndex) -> float:
    """The median length of the videos, in frames."""
    return float(np.median(index.columns().num_frames))

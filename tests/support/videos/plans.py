"""Makes videos to sample from and samplers for tests, and writes plans as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.sampler import ClipPlan, ClipSampler, VideoColumns
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "sampler.json"
ROOT = Path(__file__).resolve().parents[3]

# The authors' code uses powers of 0.84089641525 instead of the exact 2^(-k/4), so its last crop of a 240 px side is
# 119 px instead of 120.
PAPER = AugmentSpec(scales=tuple(0.84089641525**k for k in range(5)), max_scale_step=0, positions="corners5", snap_px=0)


def videos(*num_frames: int, height: int = 240, width: int = 320) -> VideoColumns:
    """Videos with these numbers of frames; their ids are 100, 101, .., their labels 0, 1, 2, 0, .."""
    count = len(num_frames)
    return VideoColumns(
        np.arange(100, 100 + count),
        np.arange(count) % 3,
        np.array(num_frames, np.int64),
        np.full(count, height),
        np.full(count, width),
    )


def sampler(
    columns: VideoColumns,
    clip: ClipSpec | None = None,
    augment: AugmentSpec | None = None,
    *,
    seed: int = 0,
    train: bool = True,
    shard: tuple[int, int] = (0, 1),
    **options: Any,
) -> ClipSampler:
    spec = ShardSpec(index=shard[0], count=shard[1])
    return ClipSampler(
        columns, clip or ClipSpec(), augment or AugmentSpec(), seed=seed, train=train, shard=spec, **options
    )


def as_json(plan: ClipPlan) -> dict[str, Any]:
    return {
        "video_id": plan.video_id,
        "label": plan.label,
        "frames": plan.frames.tolist(),
        "box": list(plan.box),
        "resized": list(plan.resized),
        "window": list(plan.window),
        "mirror": plan.mirror,
        "is_real": plan.is_real,
    }


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())

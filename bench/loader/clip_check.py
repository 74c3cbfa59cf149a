"""Whether another way to decode gives the clips that were asked for: compared with PyAV's, resized in the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench.loader.contenders import ClipLoaderContender, Work
from bench.loader.frame_check import SAME_FRAME
from bench.loader.handover import to_host
from pipelines.errors import R3DFastError, UsageError

_BATCHES = 2


def check_clips(name: str, work: Work, device: str, options: dict[str, Any]) -> str:
    """How the first clips of a loader with these `options` of LoaderSpec compare with the exact ones, in a line.

    Both resize in the graph: what FFmpeg's scaler does otherwise is measured elsewhere, and no sign of another frame.
    Raises UsageError for batches of another shape or of other videos, EnvironmentProblem where there is no such loader.
    """
    work = replace(work, augment=work.augment.model_copy(update={"resize": "graph"}))
    to_pixels = 255 * np.mean(work.augment.std) / work.augment.value_max
    away: list[float] = []
    exact = ClipLoaderContender("exact", work, **{**options, "decoder": "pyav"})
    other = ClipLoaderContender(name, work, device=device, **options)
    try:
        for _, wanted, got in zip(range(_BATCHES), exact.loader.epoch(0), other.loader.epoch(0), strict=False):
            expected, given = to_host(wanted.clips), to_host(got.clips)
            if expected.shape != given.shape or not np.array_equal(wanted.video_ids, got.video_ids):
                raise UsageError(f"{name}: clips {given.shape} of videos {got.video_ids}; expected {expected.shape}")
            away += (np.abs(expected - given).mean(axis=tuple(range(1, expected.ndim))) * to_pixels).tolist()
    finally:
        exact.close()
        other.close()
    return _in_words(away)


def try_clips(name: str, work: Work, device: str, options: dict[str, Any]) -> str:
    """Like `check_clips`, but a check that can't be made is told, not raised."""
    try:
        return check_clips(name, work, device, options)
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, R3DFastError):
            raise
        return f"not compared: {' '.join(str(error).split())[:120]}"


def _in_words(away: list[float]) -> str:
    """`away`: mean absolute difference of each clip, of 0..255."""
    other = sum(difference > SAME_FRAME for difference in away)
    if other:
        return f"{other} of {len(away)} clips are others"
    if max(away) == 0.0:
        return "identical"
    size = "below 0.1" if max(away) < 0.05 else f"up to {max(away):.1f}"
    return f"same clips (mean difference {size} of 255)"

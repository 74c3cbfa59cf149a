"""The answers of a network for frames that are in memory already, as for those of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.graph import ClipPipeline
from pipelines.errors import UsageError
from pipelines.machine.cpus import usable_cpus
from pipelines.sampler import ClipPlan, ClipSampler, VideoColumns
from pipelines.specs import ClipSpec, ShardSpec
from pipelines.stream import ClipStream, Sample
from r3d_fast.prediction.clip_logits import NOT_FINITE, Answer
from r3d_fast.prediction.network import Network

Frames = NDArray[np.uint8]  # [T, H, W, 3], RGB
NAME = "frames"  # what an Answer or a Prediction calls frames, which have no file


def as_frames(video: object) -> Frames:
    """`video`, an array or what NumPy makes one of, if it is uint8 [T, H, W, 3]. Raises UsageError for all others."""
    try:
        frames = np.asarray(video)
    except (ValueError, TypeError) as error:  # such as rows of different lengths
        raise UsageError(f"frames: no array ({error}); expected uint8 [T, H, W, 3]") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise UsageError(
            f"frames {frames.dtype} {list(frames.shape)}: expected uint8 [T, H, W, 3], the frames of one video in RGB"
        )
    return frames


class FrameReader:
    """Makes clips of frames in memory as evaluation makes them of a video's, and has the network compute them."""

    def __init__(self, network: Network, clip: ClipSpec, batch_size: int) -> None:
        """`clip`: which clips the network gets; `batch_size`: how many it computes at once."""
        _, self._augment, _ = network.config.eval_specs()
        self._network, self._clip, self._batch_size = network, clip, batch_size
        stream = ClipStream(
            "", "", None, clip, self._augment, ShardSpec(), batch_size, 0, False,
            dtype="float16" if network.clip_dtype == "float16" else "float32",
        )  # fmt: skip
        self._pipeline = ClipPipeline(stream, threads=usable_cpus())

    def answers(self, frames: Frames) -> Iterator[Answer]:
        """An Answer for each clip of a video with these frames, in order."""
        one = np.ones(1, np.int64)
        videos = VideoColumns(0 * one, 0 * one, *(one * length for length in frames.shape[:3]))
        sampler = ClipSampler(videos, self._clip, self._augment, seed=0, train=False, shard=ShardSpec())
        plans = [sampler.plan(0, position) for position in range(sampler.num_clips)]
        for first in range(0, len(plans), self._batch_size):
            some = plans[first : first + self._batch_size]
            logits, features = self._network(self._clips(frames, some))
            for number, plan in enumerate(some):
                is_finite = np.isfinite(logits[number]).all()
                yield Answer(
                    NAME, first + number, plan.frames, logits[number] if is_finite else None,
                    features[number] if is_finite else None, "" if is_finite else NOT_FINITE,
                    first + number + 1 == len(plans),
                )  # fmt: skip

    def _clips(self, frames: Frames, plans: list[ClipPlan]) -> Any:
        shown = [np.ascontiguousarray(frames[plan.frames]) for plan in plans]
        self._pipeline.feed(
            shown,
            [Sample(one.shape, 0, 0, True, plan.resized, plan.window, plan.mirror)
             for one, plan in zip(shown, plans, strict=True)],
        )  # fmt: skip
        return np.array(self._pipeline.clips())

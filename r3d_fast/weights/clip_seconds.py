"""How many seconds of video the clips of a training show; stored with the weights, for the windows of timelines."""

from __future__ import annotations

import numpy as np

from pipelines.index.video_index import VideoIndex
from pipelines.specs import ClipSpec


def median_clip_seconds(index: VideoIndex, split: str | None, clip: ClipSpec) -> float | None:
    """The median, over the videos of `split` (None: of all splits), of the seconds that a clip of each one shows.

    A `segments` clip shows its whole video, a `consecutive` one T frames at its stride, or as many as there are. None
    where no video has a frame rate.
    """
    rates = index.frame_rates(split)
    frames = index.columns(split).num_frames[rates > 0]
    if clip.sampling == "consecutive":
        frames = np.minimum(frames, clip.num_frames * clip.stride)
    seconds = frames / rates[rates > 0]
    return float(np.median(seconds)) if len(seconds) else None

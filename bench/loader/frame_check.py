"""Whether a peer gives the frames that were asked for: compared with the exact ones, and with those around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.loader.peers import Frames, Peer, extract, read
from pipelines.index.video_index import VideoIndex
from pipelines.output.temporary import temporary_folder
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.decoder import read_frames
from pipelines.video.record import VideoRecord

# Mean absolute differences of 0..255. JPEG at this quality changes frames of UCF-101 by 1 to 2; a frame of a moving
# video differs from another by more, and in a still one its neighbours tell.
SAME_FRAME = 4.0
REACH = 3  # a reader that is off is off by a few frames
# A neighbour must be nearer by a clear margin: noise of a conversion must not decide between near-equal frames.
MARGIN = 0.9


@dataclass(frozen=True)
class FrameCheck:
    """How a peer's frames compare with the exact ones, in videos: `wrong` and `failed` are paths, with why.

    `difference` is the mean absolute difference of 0..255 of the video of the `same` frames that differs most.
    """

    videos: int
    identical: int
    same: int
    difference: float
    wrong: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def text(self) -> str:
        """The outcome in a line."""
        parts = []
        if self.wrong:
            parts.append(f"{len(self.wrong)} of {self.videos} videos give other frames")
        if self.failed:
            parts.append(f"{len(self.failed)} of {self.videos} videos raise")
        if self.same:
            size = "below 0.1" if self.difference < 0.05 else f"up to {self.difference:.1f}"
            parts.append(f"{'else ' if parts else ''}same frames (mean difference {size} of 255)")
        elif self.identical:
            parts.append(f"{'else ' if parts else ''}identical")
        return ", ".join(parts)


def check_frames(peer: Peer, index: VideoIndex, split: str | None, clip: ClipSpec) -> FrameCheck:
    """How the frames of one clip of every video of `split`, read by `peer`, compare with the exact ones.

    A frame is another one if it is far from the exact frame, or clearly nearer to one of those around it; whatever
    else differs is the conversion to RGB, or JPEG.
    """
    videos = index.columns(split)
    sampler = ClipSampler(videos, clip, AugmentSpec(), seed=0, train=True, shard=ShardSpec())
    identical, same, wrong, failed = 0, [0.0], [], []
    for position in range(len(videos)):
        plan = sampler.plan(0, position)
        record = index[plan.video_id]
        try:
            got = _read_once(peer, str(index.root / record.path), plan.frames)
        except Exception as error:
            failed.append(f"{record.path}: {error or type(error).__name__}")
            continue
        difference = _difference(got, record, plan.frames, index.root)
        if difference is None:
            wrong.append(record.path)
        elif difference == 0.0:
            identical += 1
        else:
            same.append(difference)
    return FrameCheck(len(videos), identical, len(same) - 1, max(same), tuple(sorted(wrong)), tuple(sorted(failed)))


def _read_once(peer: Peer, path: str, frames: NDArray[np.int32]) -> Frames:
    if not peer.extracts:
        return read(peer, path, frames)
    with temporary_folder() as folder:
        extract(path, str(folder), frames)
        return read(peer, str(folder), frames)


def _difference(got: Frames, record: VideoRecord, frames: NDArray[np.int32], root: Path) -> float | None:
    """The mean absolute difference of `got` to the exact frames; None if one of them is another frame."""
    exact = read_frames(record, frames, root=root)
    if got.shape != exact.shape:
        return None
    away = [_distance(a, b) for a, b in zip(got, exact, strict=True)]
    if max(away) > SAME_FRAME:
        return None
    steps = [step for step in range(-REACH, REACH + 1) if step]
    around = {place: [int(frames[place]) + step for step in steps] for place, far in enumerate(away) if far}
    numbers = sorted({number for near in around.values() for number in near if 0 <= number < record.num_frames})
    others = dict(zip(numbers, read_frames(record, numbers, root=root), strict=True)) if numbers else {}
    for place, near in around.items():
        distances = [_distance(got[place], others[number]) for number in near if number in others]
        if min(distances, default=np.inf) < MARGIN * away[place]:
            return None
    return float(np.mean(away))


def _distance(a: Frames, b: Frames) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())

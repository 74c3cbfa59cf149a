"""ClipStream: the description of a loader's clips that its workers get. Sample: what a worker reports about a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import NO_JITTER, ClipSampler, Jitter
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.orientation import UPRIGHT, Orientation
from pipelines.video.scaler import Box


@dataclass(frozen=True)
class ClipStream:
    """Everything that decides the clips of a loader: the index, the split, the specs, the seed, and who decodes.

    It is sent to the worker processes, where a clip source makes the clips.
    """

    index_path: str
    root: str
    split: str | None
    clip: ClipSpec
    augment: AugmentSpec
    shard: ShardSpec
    batch_size: int
    seed: int
    train: bool
    repeats: int = 1
    last_batch: Literal["drop", "spread"] = "drop"
    balanced: bool = False
    decoder: Literal["auto", "pyav", "dali", "hybrid"] = "pyav"
    dali_share: float | Literal["auto"] = "auto"
    device: str = "cpu"  # where DALI augments and, where it does, decodes: "cpu", "gpu" or "gpu:N"
    dtype: Literal["float32", "float16"] = "float32"
    io_retries: int = 0  # how often a file is read again after a passing error of the system
    index_digest: str | None = None  # of the index, which may be made again while it is in use; None: of any
    max_corrupt_fraction: float = 1.0  # no clip is read of a video with a larger share of damaged frames
    limits: DaliLimits | None = None  # which of the videos DALI can decode; None: PyAV decodes all
    names: tuple[str, ...] = ()  # what messages call the videos, by number; none: by their paths

    def sampler(self, index: VideoIndex) -> ClipSampler:
        """The sampler that plans the clips of this stream."""
        return ClipSampler(
            index.columns(self.split), self.clip, self.augment, seed=self.seed, train=self.train, shard=self.shard,
            repeats=self.repeats, batch_size=self.batch_size, last_batch=self.last_batch,
            balanced=self.balanced,
        )  # fmt: skip

    def name_of(self, video_id: int, path: str) -> str:
        """What messages call the video number `video_id`, the file `path` below the root of the index."""
        return self.names[video_id] if self.names else str(Path(self.root, path))

    @property
    def scaled(self) -> bool:
        """Whether FFmpeg's scaler resizes the clips that PyAV decodes, so that the graph need not resize them."""
        return self.train and self.augment.resize == "decoder"


class Sample(NamedTuple):
    """A clip in its slot: the `shape` of the uint8 array there, and what its ClipPlan says of it.

    A decoded clip is frames [T, h, w, 3], and `numbers` is empty. An encoded clip is the bytes [B] of a small video:
    `numbers` are the frames of it to decode, `order` int [T] says which of these the clip shows, and `box` (y, x,
    height, width) in px which part of each, as it is stored; `orientation` turns that part upright.
    """

    shape: tuple[int, ...]
    video_id: int
    label: int
    is_real: bool
    resized: tuple[int, int]
    window: tuple[int, int]
    mirror: bool
    reason: str = ""  # why the clip could not be read; its slot is then black
    numbers: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    box: Box = (0, 0, 0, 0)
    orientation: Orientation = UPRIGHT
    jitter: Jitter = NO_JITTER

"""What clips a loader makes, as its worker processes are told, and what they answer for each clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import NO_JITTER, ClipSampler, Jitter
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.video.scaler import Box


@dataclass(frozen=True)
class ClipStream:
    """Which clips a source makes: those of `split`, in the order and with the draws that the sampler gives them."""

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
    decoder: Literal["auto", "pyav", "dali", "hybrid"] = "pyav"
    dali_share: float | Literal["auto"] = "auto"
    device: str = "cpu"  # where DALI augments, and decodes what it gets: "cpu", "gpu" or "gpu:N"
    dtype: Literal["float32", "float16"] = "float32"
    limits: DaliLimits | None = None  # what DALI decodes of these videos; None: nothing, PyAV decodes all

    def sampler(self, index: VideoIndex) -> ClipSampler:
        """The sampler of this stream's videos."""
        return ClipSampler(
            index.columns(self.split), self.clip, self.augment, seed=self.seed, train=self.train, shard=self.shard,
            repeats=self.repeats, batch_size=self.batch_size,
        )  # fmt: skip

    @property
    def scaled(self) -> bool:
        """Whether clips that PyAV decodes are scaled by its scaler, so that the graph has nothing to resize of them."""
        return self.train and self.augment.resize == "decoder"


class Sample(NamedTuple):
    """What a source says of a clip that lies in its slot: `shape` of the uint8 array, and what its plan says.

    An encoded clip is bytes [B]; `numbers` says which frames of it to decode, none for a decoded one, `order` which of
    those the clip shows, int [T], and `box` which part of each.
    """

    shape: tuple[int, ...]
    video_id: int
    label: int
    is_real: bool
    resized: tuple[int, int]
    window: tuple[int, int]
    mirror: bool
    reason: str = ""  # why it is blank
    numbers: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    box: Box = (0, 0, 0, 0)
    jitter: Jitter = NO_JITTER

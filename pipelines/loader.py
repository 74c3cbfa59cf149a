"""ClipLoader: gives the clips of an index in batches, for any framework that takes DLPack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.batches import EpochBatches
from pipelines.containers.io_retries import fitting_retries
from pipelines.dali.routing import choose_decoder
from pipelines.dali.share_finder import Routing, ShareFinder
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.machine.device import check_device, device_number
from pipelines.machine.gpu_wait import choose_gpu_wait
from pipelines.prefetch import ClipPrefetcher, LoaderStatistics, num_workers
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec
from pipelines.stream import ClipStream, Sample


@dataclass(frozen=True)
class BadClip:
    """A clip that could not be read: its video and the reason. Its row in the batch is black and not real."""

    video_id: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """A batch of N clips. N is the batch size, or less in training with `last_batch` spread.

    `clips` is a DLPack object on the device of the loader, float32 or float16 [N, 3, T, S, S] or [N, T, S, S, 3]. It is
    complete, whatever CUDA stream reads it, and does not change while a reference to it is held. A tensor made from it
    by DLPack may be deleted while work that reads it is still queued: DALI waits for the GPU before it reuses the
    memory.

    `labels` and `video_ids` are int64 [N]; `index[video_id]` is the video. `is_real` is bool [N]: False for the rows
    that pad the last batch of an evaluation, and for the clips in `bad`. The next batch starts at `position` of
    `epoch`, counted in clips over all shards.
    """

    clips: Any
    labels: NDArray[np.int64]
    video_ids: NDArray[np.int64]
    is_real: NDArray[np.bool_]
    epoch: int
    position: int
    bad: tuple[BadClip, ...]


class ClipLoader:
    """Gives the batches of one split of an index, epoch after epoch.

    Each `for` loop over the loader gives the next epoch; `epoch(number, position)` starts anywhere. Worker processes
    decode clips ahead into shared memory, and a DALI pipeline augments them. A worker that dies or hangs is replaced,
    and the same clips are made again. `close`, or the end of a `with` block, ends the processes at once.
    """

    def __init__(
        self,
        index: VideoIndex,
        *,
        clip: ClipSpec | None = None,
        augment: AugmentSpec | None = None,
        loader: LoaderSpec | None = None,
        split: str | None = "train",
        train: bool | None = None,
        shard: ShardSpec | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "float16"] = "float32",
        balanced: bool = False,
        max_corrupt_fraction: float = 1.0,
        names: Sequence[str] = (),
    ) -> None:
        """A loader of the videos of `split` (None: of all splits).

        `train` says whether to shuffle and augment; by default it is true for the split "train". `device` is where
        clips are augmented and where the batches lie: "cpu", "gpu" or "gpu:N". `dtype` is that of the clips. If
        `balanced`, an epoch of training shows all classes equally often. A video of whose frames the index says that
        more than the share `max_corrupt_fraction` are damaged is not read: its clips are bad ones. `names` is what
        messages call the videos of the index, by number (none: by their paths).

        Raises DataError if the index lacks the split or the split is empty, UsageError if it has fewer clips than a
        batch, EnvironmentProblem if the device is a GPU that can't be used.
        """
        self.spec = loader or LoaderSpec()
        if self.spec.batch_size == "auto":
            raise UsageError("loader.batch_size auto: a loader has no model to measure; expected a number of clips")
        self.batch_size = self.spec.batch_size
        check_device(device)
        if (gpu := device_number(device)) is not None:
            choose_gpu_wait(gpu)
        split = index.own_split(split) if split is not None else None
        train = split == "train" if train is None else train
        if dtype not in ("float32", "float16"):
            raise UsageError(f"dtype {dtype!r}: expected 'float32' or 'float16'")
        self._stream = ClipStream(
            str(index.path), str(index.root), split, clip or ClipSpec(), augment or AugmentSpec(),
            shard or ShardSpec(), self.batch_size, self.spec.seed, train,
            self.spec.repeats if train else 1, self.spec.last_batch, balanced and train, self.spec.decoder,
            self.spec.dali_share, device, dtype, fitting_retries(self.spec.io_retries, self.spec.timeout_seconds),
            index.digest, max_corrupt_fraction, names=tuple(names),
        )  # fmt: skip
        self._finder: ShareFinder | None = None
        self.index = index
        self.sampler = self._stream.sampler(index)
        self.statistics = LoaderStatistics()
        self._check_sizes()
        self._epoch = 0
        self._prefetcher: ClipPrefetcher | None = None

    def __len__(self) -> int:
        """The number of batches in an epoch, the same on every shard."""
        return self.sampler.num_batches(self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        number = self._epoch
        self._epoch += 1
        return self.epoch(number)

    def epoch(self, number: int, position: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (0-based) from `position` on.

        `position` is counted in clips over all shards, as `Batch.position` gives it. Raises UsageError for a position
        where no batch starts, EnvironmentProblem if workers keep dying.
        """
        batches = self.batches
        start = batches.number_at(position)
        if not 0 <= start <= len(batches) or batches.start(start) != position:
            raise UsageError(
                f"position {position} is not where a batch of {batches.most} clips starts in an epoch of "
                f"{len(self)} batches; expected the position of a batch of the same batch size and number of shards"
            )
        return self._batches(number, start)

    @property
    def batches(self) -> EpochBatches:
        """How an epoch is divided into batches."""
        return self.sampler.batches(self.batch_size)

    def start(self) -> None:
        """Start to make the first batches of epoch 0, without waiting for them, so that the first one comes sooner."""
        if self._prefetcher is None and len(self):
            self._prefetcher = self._new_prefetcher()
            self._prefetcher.start((0, 0))

    def use_layout(self, layout: Literal["NCTHW", "NTHWC"]) -> None:
        """Give the clips of all batches in this order of axes, whatever `augment.layout` says.

        Raises UsageError once batches are being made.
        """
        if self._finder is not None:
            raise UsageError(
                f"layout {layout}: the loader makes batches already; expected the call before the first one"
            )
        augment = self._stream.augment.model_copy(update={"layout": layout})
        self._stream = replace(self._stream, augment=augment)
        self.sampler = self._stream.sampler(self.index)

    @property
    def split(self) -> str | None:
        """The split of the index whose videos are loaded; None: all splits."""
        return self._stream.split

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of the decoding workers; empty before the first batch."""
        return self._prefetcher.pool.pids if self._prefetcher else []

    @property
    def routing(self) -> Routing | None:
        """Which decoder decodes which share of the clips.

        None while it is not decided: before the first batch, and while the decoders are measured.
        """
        return self._finder.routing if self._finder else None

    def close(self) -> None:
        """End the worker processes. If the loader is used again, it starts new ones."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_sizes(self) -> None:
        """Raise UsageError where an epoch has no batch, or a shard would get none of the clips of a batch."""
        shards = self._stream.shard.count
        size = f"loader.batch_size {self.batch_size}" + (f" x {shards} shards" if shards > 1 else "")
        videos = f"{len(self.sampler.videos)} clips of split {self.split!r}"
        if len(self) == 0:
            raise UsageError(
                f"{size} is more than the {videos}: training drops incomplete batches; choose a smaller batch_size, or "
                "loader.last_batch=spread, which uses every video"
            )
        if self.batches.fewest < shards:
            raise UsageError(
                f"{size}: loader.last_batch=spread would make batches of {self.batches.fewest} of the {videos}, "
                "fewer than there are shards; choose another batch_size, or fewer shards"
            )

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        for number in range(start, len(self)):
            if self._prefetcher is None:
                self._prefetcher = self._new_prefetcher()
            try:
                # All epochs of an evaluation are the same.
                clips, samples = self._prefetcher.batch_at((epoch if self._stream.train else 0, number))
            except BaseException:
                self.close()  # the batches that are being made are of no use any more
                raise
            yield _batch(clips, samples, epoch, self.batches.start(number + 1))

    def _new_prefetcher(self) -> ClipPrefetcher:
        if self._finder is None:
            workers = num_workers(self.spec)
            self._stream, self._finder = choose_decoder(self._stream, self.index, workers, self.spec.threads)
        self._finder.forget_planned()
        return ClipPrefetcher(self._stream, self.index, self.spec, len(self), self._finder, self.statistics)


def _batch(clips: Any, samples: list[Sample], epoch: int, position: int) -> Batch:
    return Batch(
        clips,
        np.array([sample.label for sample in samples], np.int64),
        np.array([sample.video_id for sample in samples], np.int64),
        np.array([sample.is_real for sample in samples], bool),
        epoch,
        position,
        tuple(BadClip(sample.video_id, sample.reason) for sample in samples if sample.reason),
    )

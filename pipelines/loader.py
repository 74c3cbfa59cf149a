"""ClipLoader: batches of clips, ready for any framework that speaks DLPack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.routing import Routing, ShareFinder, choose_decoder
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.machine.device import check_device
from pipelines.prefetch import ClipPrefetcher, LoaderStatistics, num_workers
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec
from pipelines.stream import ClipStream, Sample


@dataclass(frozen=True)
class BadClip:
    """A clip that could not be read: its video and why. Its row in the batch is blank and not real."""

    video_id: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """N clips; N is the same for every batch.

    `clips`: a DLPack object on the loader's device, float32 or float16 [N, 3, T, S, S] or [N, T, S, S, 3]. It is
    complete, for any stream, and stays as it is for as long as it is held. A tensor that was made of it by DLPack may
    be let go of while work that reads it is still queued: DALI waits for the GPU before it uses that memory again.
    `labels` int64 [N], `video_ids` int64 [N] (`index[video_id]`), `is_real` bool [N]: False for rows that pad an
    evaluation's last batch and for `bad` clips. `epoch` and `position`: where the next batch starts, counted in clips
    over all shards.
    """

    clips: Any
    labels: NDArray[np.int64]
    video_ids: NDArray[np.int64]
    is_real: NDArray[np.bool_]
    epoch: int
    position: int
    bad: tuple[BadClip, ...]


class ClipLoader:
    """Batches of one split of an index, epoch after epoch.

    Iterating gives the next epoch; `epoch(n, position)` starts anywhere. Worker processes decode ahead into shared
    memory, a DALI pipeline augments; a worker that dies or hangs is replaced and its clips made again, the same. Close
    it, or use it in a `with`, to end its processes at once.
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
    ) -> None:
        """A loader of `split` (None: all); `train`: whether to shuffle and augment (default: if split is "train").

        `device`: where clips are augmented and handed over, "cpu", "gpu" or "gpu:N"; `dtype`: of the clips.
        Raises DataError if the split is missing or empty, UsageError if it is smaller than one batch,
        EnvironmentProblem if the device is a GPU that can't be used.
        """
        self.spec = loader or LoaderSpec()
        check_device(device)
        split = index.own_split(split) if split is not None else None
        train = split == "train" if train is None else train
        if dtype not in ("float32", "float16"):
            raise UsageError(f"dtype {dtype!r}: expected 'float32' or 'float16'")
        self._stream = ClipStream(
            str(index.path), str(index.root), split, clip or ClipSpec(), augment or AugmentSpec(),
            shard or ShardSpec(), self.spec.batch_size, self.spec.seed, train,
            self.spec.repeats if train else 1, self.spec.decoder, self.spec.dali_share, device, dtype,
        )  # fmt: skip
        self._finder: ShareFinder | None = None
        self.index = index
        self.sampler = self._stream.sampler(index)
        self.statistics = LoaderStatistics()
        self._per_batch = self.spec.batch_size * self._stream.shard.count
        if len(self) == 0:
            shards = f" x {self._stream.shard.count} shards" if self._stream.shard.count > 1 else ""
            raise UsageError(
                f"loader.batch_size {self.spec.batch_size}{shards} is more than the {len(self.sampler.videos)} clips "
                f"of split {split!r}: training drops incomplete batches; choose a smaller one"
            )
        self._epoch = 0
        self._prefetcher: ClipPrefetcher | None = None

    def __len__(self) -> int:
        """Batches an epoch, the same on every shard."""
        return self.sampler.num_batches(self.spec.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        number = self._epoch
        self._epoch += 1
        return self.epoch(number)

    def epoch(self, number: int, position: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (0-based) from `position` on, a `Batch.position` of the same epoch.

        Raises UsageError for a position between batches, EnvironmentProblem if workers keep dying.
        """
        start, rest = divmod(position, self._per_batch)
        if rest or not 0 <= start <= len(self):
            raise UsageError(
                f"position {position} is not where a batch of {self._per_batch} clips starts in an epoch of "
                f"{len(self)} batches; expected the position of a batch of the same batch size and number of shards"
            )
        return self._batches(number, start)

    def start(self) -> None:
        """Start the processes on the first batches of epoch 0, without waiting for them: the first one comes sooner."""
        if self._prefetcher is None and len(self):
            self._prefetcher = self._new_prefetcher()
            self._prefetcher.start((0, 0))

    @property
    def split(self) -> str | None:
        """The split of the index whose videos are loaded; None: all."""
        return self._stream.split

    @property
    def worker_pids(self) -> list[int]:
        """The process numbers of the decoding workers; none before the first batch."""
        return self._prefetcher.pool.pids if self._prefetcher else []

    @property
    def routing(self) -> Routing | None:
        """Who decodes the clips; None while that is not known: before the first batch, and while it is measured."""
        return self._finder.routing if self._finder else None

    def close(self) -> None:
        """End the worker processes. The loader can be used again: it starts new ones."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        for number in range(start, len(self)):
            if self._prefetcher is None:
                self._prefetcher = self._new_prefetcher()
            try:
                # Every epoch of an evaluation is the same one.
                clips, samples = self._prefetcher.batch_at((epoch if self._stream.train else 0, number))
            except BaseException:
                self.close()  # what is on its way is of no use any more
                raise
            yield _batch(clips, samples, epoch, (number + 1) * self._per_batch)

    def _new_prefetcher(self) -> ClipPrefetcher:
        if self._finder is None:
            self._stream, self._finder = choose_decoder(self._stream, self.index, num_workers(self.spec))
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

"""ClipLoader: batches of clips, ready for any framework that speaks DLPack."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem, R3DFastError, UsageError
from pipelines.graph import build_pipeline
from pipelines.index import VideoIndex
from pipelines.probing import usable_cpus
from pipelines.source import ClipStream, DecodedSource
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec

_MAX_RESTARTS = 3
_WATCH_SECONDS = 1.0
_starting = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadClip:
    """A clip that could not be read: its video and why. Its row in the batch is blank and not real."""

    video_id: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """N clips; N is the same for every batch.

    `clips`: a DLPack object on the host, float32 [N, 3, T, S, S] or [N, T, S, S, 3]; it stays as it is for as long as
    it is held. `labels` int64 [N], `video_ids` int64 [N] (`index[video_id]`), `is_real` bool [N]: False for rows that
    pad an evaluation's last batch and for `bad` clips. `epoch` and `position`: where the next batch starts, counted in
    clips over all shards.
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

    Iterating gives the next epoch; `epoch(n, position)` starts anywhere. A worker process that dies is replaced and its
    batch made again, the same. Close it, or use it in a `with`, to end its processes at once.
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
    ) -> None:
        """A loader of `split` (None: all); `train`: whether to shuffle and augment (default: if split is "train").

        Raises DataError if the split is missing or empty, UsageError if it is smaller than one batch.
        """
        self.spec = loader or LoaderSpec()
        train = split == "train" if train is None else train
        self._stream = ClipStream(
            str(index.path), str(index.root), split, clip or ClipSpec(), augment or AugmentSpec(),
            shard or ShardSpec(), self.spec.batch_size, self.spec.seed, train, endless=train,
        )  # fmt: skip
        self.index = index
        self.sampler = self._stream.sampler(index)
        self._per_batch = self.spec.batch_size * self._stream.shard.count
        if len(self) == 0:
            shards = f" x {self._stream.shard.count} shards" if self._stream.shard.count > 1 else ""
            raise UsageError(
                f"loader.batch_size {self.spec.batch_size}{shards} is more than the {self.sampler.num_clips} clips of "
                f"split {split!r}: training drops incomplete batches; choose a smaller one"
            )
        self._pipeline: Any = None
        self._workers: list[BaseProcess] = []
        self._has_worked = False  # what never worked is not tried again
        self._next = (0, 0)  # (epoch, batch) that the pipeline gives next
        self._epoch = 0

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

    def close(self) -> None:
        """End the worker processes. The loader can be used again: it starts new ones."""
        self._pipeline, self._workers = None, []

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        for number in range(start, len(self)):
            following = number + 1
            batch = _batch(self._run(epoch, number), epoch, following * self._per_batch)
            self._next = self._place(epoch, following)
            if following == len(self) and not self._stream.endless:
                self._rewind()
            yield batch

    def _place(self, epoch: int, batch: int) -> tuple[int, int]:
        """(epoch, batch) in the pipeline's own count: every epoch of an evaluation is the same one."""
        if not self._stream.endless:
            return 0, batch % len(self)
        return epoch + batch // len(self), batch % len(self)

    def _run(self, epoch: int, batch: int) -> Any:
        """The pipeline's outputs for this batch; made again by new workers if one died."""
        attempts = 1 + (_MAX_RESTARTS if self._has_worked else 0)
        for attempt in range(1, attempts + 1):
            try:
                if self._pipeline is None or self._next != self._place(epoch, batch):
                    self._start(epoch, batch)
                outputs = _run_watched(self._pipeline.run, self._workers)
            except R3DFastError:
                raise
            except RuntimeError as error:
                failure = error.with_traceback(None)  # its frames would keep the pipeline and its workers
            else:
                self._has_worked = True
                return outputs
            self.close()
            reason = (str(failure).strip().splitlines() or [type(failure).__name__])[-1].strip()
            if attempt < attempts:
                _log.warning("decoding failed at batch %d of epoch %d (%s): starting again", batch, epoch, reason)
        raise EnvironmentProblem(
            f"decoding failed at batch {batch} of epoch {epoch} (attempts: {attempts}): {reason}; loader.workers=0 "
            "shows the error where it happens; a script needs its code below `if __name__ == '__main__':`"
        ) from failure

    def _start(self, epoch: int, batch: int) -> None:
        self.close()  # the old workers end before the new ones start
        workers = usable_cpus() if self.spec.workers == "auto" else self.spec.workers
        threads = usable_cpus() if self.spec.threads == "auto" else self.spec.threads
        source = DecodedSource(replace(self._stream, epoch=epoch, batch=batch))
        with _starting:  # what is new afterwards is ours
            others = set(multiprocessing.active_children())
            self._pipeline = build_pipeline(source, workers=workers, threads=threads, prefetch=self.spec.prefetch)
            self._workers = [child for child in multiprocessing.active_children() if child not in others]
        self._next = self._place(epoch, batch)

    def _rewind(self) -> None:
        """Begin an evaluation's source again: it has ended, and nothing is made ahead."""
        try:
            _run_watched(self._pipeline.run, self._workers)
        except StopIteration:
            self._pipeline.reset()
        except RuntimeError:
            self.close()  # a worker died: the next epoch starts new ones
        else:
            raise AssertionError("the source went on past the end of its epoch")


def _run_watched(run: Callable[[], Any], workers: Sequence[BaseProcess]) -> Any:
    """`run()`; raises RuntimeError if a worker has died and `run` does not come back.

    DALI notices by itself a worker that dies at work. One that dies asleep is waited for without end: the thread that
    waits is left behind then.
    """
    if not workers:
        return run()
    outcome: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((run(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work, name="r3d-fast-loader", daemon=True)
    thread.start()
    died = False
    while thread.is_alive():
        thread.join(_WATCH_SECONDS)
        if died and thread.is_alive():
            raise RuntimeError("a worker process died")
        died = bool(wait([worker.sentinel for worker in workers], timeout=0))
    outputs, error = outcome.pop()
    try:
        if error is not None:
            raise error
        return outputs
    finally:
        del error  # its traceback holds this frame, which holds the pipeline


def _batch(outputs: Any, epoch: int, position: int) -> Batch:
    clips, info, reasons = outputs
    rows = np.array(info.as_tensor())
    real = rows[:, 2].astype(bool)
    bad = []
    if not real.all():
        for i in np.flatnonzero(~real):
            reason = bytes(np.array(reasons[int(i)])).decode()
            if reason != "\0":
                bad.append(BadClip(int(rows[i, 1]), reason))
    return Batch(clips.as_tensor(), rows[:, 0].copy(), rows[:, 1].copy(), real, epoch, position, tuple(bad))

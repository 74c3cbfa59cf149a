"""What runs behind a ClipLoader: it keeps workers and DALI busy ahead of the batch that is asked for.

A batch's way: tasks to the pool -> samples in slots of the arena -> DALI, which reads the slots in place -> clips. The
batch that follows the one given out is augmented while the caller works; the ones after it are decoded.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pipelines.arena import Arena
from pipelines.errors import EnvironmentProblem
from pipelines.graph import ClipPipeline
from pipelines.index import VideoIndex
from pipelines.pool import WorkerPool
from pipelines.probing import usable_cpus
from pipelines.source import ClipStream, EncodedSource, Sample
from pipelines.specs import LoaderSpec
from pipelines.worker import Reply, Task

_log = logging.getLogger(__name__)
Place = tuple[int, int]  # epoch, batch of this shard


@dataclass
class LoaderStatistics:
    """What loading has cost since the loader was made; seconds are wall time, of workers added up.

    `read`, `decode`, `convert`: in the workers (convert: to RGB, with the crop and the decoder's scaling). `ship`: the
    rest of a worker's time for a clip: planning, looking up the index. `augment`: the loader's wait for DALI.
    `wait`: its wait for workers.
    """

    clips: int = 0
    bytes_read: int = 0
    packets: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    convert_seconds: float = 0.0
    ship_seconds: float = 0.0
    augment_seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass
class _Pending:
    """A batch on its way: the slots and samples of its rows, how many are still to come."""

    place: Place
    slots: list[int]
    samples: list[Sample | None]
    missing: int


_Row = tuple[_Pending, int]  # a batch and a row of it


class ClipEngine:
    """The workers, the shared memory and the DALI pipeline of one loader, and which batches are on their way."""

    def __init__(
        self, stream: ClipStream, index: VideoIndex, spec: LoaderSpec, num_batches: int, statistics: LoaderStatistics
    ) -> None:
        """Start the processes; `num_batches` of an epoch. Raises EnvironmentProblem where they can't be started."""
        self._stream, self._index, self._num_batches, self._statistics = stream, index, num_batches, statistics
        self._source = source = stream.source()
        rows = spec.prefetch + stream.repeats
        self._arena = Arena(rows * stream.batch_size, source.slot_bytes(index))
        workers = usable_cpus() if spec.workers == "auto" else spec.workers
        self._threads = usable_cpus() if spec.threads == "auto" else spec.threads
        self.pool = WorkerPool(source, self._arena, workers=workers, timeout_seconds=spec.timeout_seconds)
        self._pipeline = ClipPipeline(stream, threads=self._threads)
        self._max_pending = rows
        self._free = list(range(self._arena.slots))
        self._pending: deque[_Pending] = deque()
        self._todo: deque[tuple[_Row, ...]] = deque()  # decode passes without slots yet
        self._at: dict[int, tuple[_Row, ...]] = {}  # task -> the rows it makes
        self._tasks = 0
        self._next: Place | None = None  # the batch that follows the pending ones; None: the end
        self._augmenting = False  # the first pending batch is in DALI

    def run(self, place: Place) -> tuple[Any, list[Sample]]:
        """(clips, samples) of the batch at `place`: a DLPack object, and what is known of each row."""
        if not self._pending or self._pending[0].place != place:
            self._go_to(place)
        head = self._pending[0]
        begin = perf_counter()
        while head.missing:
            self._collect(block=True)
        waited = perf_counter()
        if not self._augmenting:
            self._augment(head)
        clips = self._clips(head)
        self._statistics.wait_seconds += waited - begin
        self._statistics.augment_seconds += perf_counter() - waited
        self._statistics.clips += len(head.slots)
        self._augmenting = False
        self._pending.popleft()
        self._release(head)
        self._dispatch()
        self._collect(block=False)
        if self._pending and not self._pending[0].missing:
            self._augment(self._pending[0])
        return clips, [sample for sample in head.samples if sample is not None]

    def close(self) -> None:
        """End the processes at once."""
        self.pool.close()
        self._arena.close()

    def _go_to(self, place: Place) -> None:
        """Drop what is on its way and begin at `place`."""
        if self._augmenting:
            try:
                self._pipeline.clips()
            except RuntimeError:  # DALI failed on clips that nobody wants any more
                self._restart_dali()
            self._augmenting = False
        self.pool.cancel()
        for batch in self._pending:
            self._release(batch)
        self._pending.clear()
        self._todo.clear()
        self._at.clear()
        self._next = place
        self._dispatch()

    def _dispatch(self) -> None:
        """Give out decode passes as far as there are slots for their clips."""
        while True:
            if not self._todo:
                if self._next is None or len(self._pending) > self._max_pending - self._stream.repeats:
                    return
                self._plan_round(*self._next)
            rows = self._todo[0]
            if len(self._free) < len(rows):
                return
            self._todo.popleft()
            slots = tuple(self._free.pop() for _ in rows)
            for (batch, row), slot in zip(rows, slots, strict=True):
                batch.slots[row] = slot
            self._tasks += 1
            self._at[self._tasks] = rows
            epoch = rows[0][0].place[0]
            positions = tuple(self._position(batch, row) for batch, row in rows)
            self.pool.submit(Task(self._tasks, self._arena.generation, epoch, positions, slots))

    def _plan_round(self, epoch: int, first: int) -> None:
        """Put the batches of a round from `first` on the way: with repeats those that share their decode passes."""
        stream = self._stream
        end = (first // stream.repeats + 1) * stream.repeats
        size = stream.batch_size
        batches = [_Pending((epoch, number), [-1] * size, [None] * size, size) for number in range(first, end)]
        self._pending += batches
        for row in range(size):
            self._todo.append(tuple((batch, row) for batch in batches))
        if end < self._num_batches:
            self._next = (epoch, end)
        else:
            self._next = (epoch + 1, 0) if stream.train else None

    def _collect(self, *, block: bool) -> None:
        for reply in self.pool.collect(block=block):
            self._note(reply)

    def _note(self, reply: Reply) -> None:
        for (batch, row), sample in zip(self._at.pop(reply.number), reply.samples, strict=True):
            batch.samples[row] = sample
            batch.missing -= 1
        cost, total = reply.statistics, self._statistics
        total.read_seconds += cost.read_seconds
        total.decode_seconds += cost.decode_seconds
        total.convert_seconds += cost.convert_seconds
        total.ship_seconds += reply.seconds - cost.read_seconds - cost.decode_seconds - cost.convert_seconds
        total.bytes_read += cost.bytes_read
        total.packets += cost.packets

    def _augment(self, batch: _Pending) -> None:
        self._feed(batch, range(len(batch.slots)))
        self._augmenting = True

    def _feed(self, batch: _Pending, rows: Sequence[int]) -> None:
        data, samples = [], []
        for row in rows:
            sample = batch.samples[row]
            assert sample is not None
            data.append(self._arena.slot(batch.slots[row])[: math.prod(sample.shape)].reshape(sample.shape))
            samples.append(sample)
        self._pipeline.feed(data, samples)

    def _clips(self, batch: _Pending) -> Any:
        """The clips of the batch that is in DALI; those that DALI itself fails on are found out and left to PyAV."""
        try:
            return self._pipeline.clips()
        except RuntimeError as error:
            if not isinstance(self._source, EncodedSource):
                raise EnvironmentProblem(f"DALI failed: {_in_one_line(error)}") from error
        for row in range(len(batch.slots)):
            self._restart_dali()
            try:
                self._feed(batch, [row])
                self._pipeline.clips()
            except RuntimeError as error:
                self._decode(batch, row, self._source, _in_one_line(error))
        self._restart_dali()
        self._feed(batch, range(len(batch.slots)))
        return self._pipeline.clips()

    def _restart_dali(self) -> None:
        """A pipeline in place of one that has failed: DALI's are of no use after that."""
        self._pipeline = ClipPipeline(self._stream, threads=self._threads)

    def _decode(self, batch: _Pending, row: int, source: EncodedSource, reason: str) -> None:
        """Decode the clip of a row here, by PyAV; blank it, as any, where that fails too."""
        slot = self._arena.slot(batch.slots[row])
        (sample,) = source.load_decoded(batch.place[0], [self._position(batch, row)], [slot])
        batch.samples[row] = sample
        if sample.is_real:
            path = Path(self._stream.root) / self._index[sample.video_id].path
            _log.warning("%s: DALI can't decode it (%s): decoded by PyAV", path, reason)

    def _position(self, batch: _Pending, row: int) -> int:
        """Where the clip of a row stands in the epoch, counted over all shards."""
        stream = self._stream
        return (batch.place[1] * stream.batch_size + row) * stream.shard.count + stream.shard.index

    def _release(self, batch: _Pending) -> None:
        for slot, sample in zip(batch.slots, batch.samples, strict=True):
            if sample is not None:
                self._arena.trim(slot, math.prod(sample.shape))
            if slot >= 0:
                self._free.append(slot)


def _in_one_line(error: RuntimeError) -> str:
    """The telling line of DALI's page-long message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "ssert" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]

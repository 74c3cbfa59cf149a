"""What runs behind a ClipLoader: it keeps workers and DALI busy ahead of the batch that is asked for.

A batch's way: tasks to the pool -> samples in slots of the arena -> DALI, which reads the slots in place -> clips. The
batch that follows the one given out is augmented while the caller works; the ones after it are decoded. Which clips are
left to DALI to decode is decided when a batch is planned.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pipelines.dali.graph_runner import DaliInput, GraphRunner
from pipelines.dali.routing import ShareFinder, is_shared_out
from pipelines.index.video_index import VideoIndex
from pipelines.machine.cpus import usable_cpus
from pipelines.specs import LoaderSpec
from pipelines.stream import ClipStream, Sample
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import clip_source
from pipelines.workers.pool import WorkerPool
from pipelines.workers.worker import Reply, Task

_log = logging.getLogger(__name__)
BatchPlace = tuple[int, int]  # epoch, batch of this shard


@dataclass
class LoaderStatistics:
    """What loading has cost since the loader was made; seconds are wall time, of workers added up.

    `read`, `decode`, `convert`: in the workers (convert: to RGB, with the crop and the decoder's scaling). `ship`: the
    rest of a worker's time for a clip: planning, looking up the index. `augment`: the loader's wait for DALI.
    `wait`: its wait for workers. `encoded_clips`: those that DALI decoded.
    """

    clips: int = 0
    encoded_clips: int = 0
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
    """A batch on its way: the slots and samples of its rows, how many are still to come.

    `share` of its rows is left to DALI to decode; a `trial` is timed with nothing else in DALI.
    """

    place: BatchPlace
    slots: list[int]
    samples: list[Sample | None]
    missing: int
    share: float
    trial: bool


_RowOfBatch = tuple[_Pending, int]  # a batch and a row of it


class ClipPrefetcher:
    """The workers, the shared memory and the DALI pipeline of one loader, and which batches are on their way."""

    def __init__(
        self,
        stream: ClipStream,
        index: VideoIndex,
        spec: LoaderSpec,
        num_batches: int,
        finder: ShareFinder,
        statistics: LoaderStatistics,
    ) -> None:
        """Start the processes; `num_batches` of an epoch. Raises EnvironmentProblem where they can't be started."""
        self._stream, self._index, self._num_batches, self._statistics = stream, index, num_batches, statistics
        self._finder = finder
        self._sampler = stream.sampler(index)
        self._source = source = clip_source(stream)
        rows = spec.prefetch + stream.repeats
        self._arena = Arena(rows * stream.batch_size, source.slot_bytes(index))
        self.pool = WorkerPool(source, self._arena, workers=num_workers(spec), timeout_seconds=spec.timeout_seconds)
        self._runner = GraphRunner(stream, threads=_num_threads(spec, stream))
        self._max_pending = rows
        self._free = list(range(self._arena.slots))
        self._pending: deque[_Pending] = deque()
        self._todo: deque[tuple[_RowOfBatch, ...]] = deque()  # decode passes without slots yet
        self._at: dict[int, tuple[_RowOfBatch, ...]] = {}  # task -> the rows it makes
        self._tasks = 0
        self._next: BatchPlace | None = None  # the batch that follows the pending ones; None: the end

    def start(self, place: BatchPlace) -> None:
        """Set the workers to the batch at `place` and those that follow."""
        self._go_to(place)

    def batch_at(self, place: BatchPlace) -> tuple[Any, list[Sample]]:
        """(clips, samples) of the batch at `place`: a DLPack object, and what is known of each row."""
        if not self._pending or self._pending[0].place != place:
            self._go_to(place)
        head = self._pending[0]
        begin = perf_counter()
        while head.missing:
            self._collect(block=True)
        waited = perf_counter()
        if not self._runner.busy:
            self._augment(head)
        clips = self._runner.finish(lambda row, reason: self._decode(head, row, reason))
        done = perf_counter()
        samples = [sample for sample in head.samples if sample is not None]
        encoded = sum(bool(sample.numbers) for sample in samples)
        if head.trial:
            routing = self._finder.note_trial(encoded, done - waited)
            if routing is not None:
                _log.info("%s", routing)
        self._statistics.wait_seconds += waited - begin
        self._statistics.augment_seconds += done - waited
        self._statistics.clips += len(head.slots)
        self._statistics.encoded_clips += encoded
        self._pending.popleft()
        self._release(head)
        self._dispatch()
        self._collect(block=False)
        if self._pending and not self._pending[0].missing and not self._pending[0].trial:
            self._augment(self._pending[0])
        return clips, samples

    def close(self) -> None:
        """End the processes at once."""
        self.pool.close()
        self._arena.close()

    def _go_to(self, place: BatchPlace) -> None:
        """Drop what is on its way and begin at `place`."""
        self._runner.drop()
        self._finder.forget_planned()
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
            encoded = self._is_encoded(*rows[0])
            self.pool.submit(Task(self._tasks, self._arena.generation, epoch, positions, slots, encoded))

    def _plan_round(self, epoch: int, first: int) -> None:
        """Put the batches of a round from `first` on the way: with repeats those that share their decode passes."""
        stream = self._stream
        end = (first // stream.repeats + 1) * stream.repeats
        size = stream.batch_size
        share, trial = self._finder.plan()
        batches = [
            _Pending((epoch, number), [-1] * size, [None] * size, size, share, trial and number == first)
            for number in range(first, end)
        ]
        self._pending += batches
        for row in range(size):
            rows = tuple((batch, row) for batch in batches)
            if row and self._share_frames(batches[0], row - 1, row):
                self._todo[-1] += rows
            else:
                self._todo.append(rows)
        if end < self._num_batches:
            self._next = (epoch, end)
        else:
            self._next = (epoch + 1, 0) if stream.train else None

    def _share_frames(self, batch: _Pending, one: int, other: int) -> bool:
        """Whether two rows are crops of the same frames, which PyAV then decodes once."""
        crops = self._sampler.crops
        if crops == 1 or self._runner.decodes:
            return False
        return self._position(batch, one) // crops == self._position(batch, other) // crops

    def _is_encoded(self, batch: _Pending, row: int) -> bool:
        """Whether the clip of a row is left to DALI to decode, if it can."""
        if not self._runner.decodes or not is_shared_out(row, batch.share):
            return False
        failed = self._runner.failed_videos
        return not failed or self._sampler.plan(batch.place[0], self._position(batch, row)).video_id not in failed

    def _collect(self, *, block: bool) -> None:
        for reply in self.pool.collect(block=block):
            self._note(reply)

    def _note(self, reply: Reply) -> None:
        for (batch, row), sample in zip(self._at.pop(reply.number), reply.samples, strict=True):
            batch.samples[row] = sample
            batch.missing -= 1
        if self._finder.routing is None and reply.samples:
            encoded = any(sample.numbers for sample in reply.samples)
            self._finder.note_clips(len(reply.samples), reply.seconds, encoded=encoded)
        cost, total = reply.statistics, self._statistics
        total.read_seconds += cost.read_seconds
        total.decode_seconds += cost.decode_seconds
        total.convert_seconds += cost.convert_seconds
        total.ship_seconds += reply.seconds - cost.read_seconds - cost.decode_seconds - cost.convert_seconds
        total.bytes_read += cost.bytes_read
        total.packets += cost.packets

    def _augment(self, batch: _Pending) -> None:
        self._runner.start([self._row(batch, row) for row in range(len(batch.slots))])

    def _row(self, batch: _Pending, row: int) -> DaliInput:
        sample = batch.samples[row]
        assert sample is not None
        slot = self._arena.slot(batch.slots[row])
        return DaliInput(slot[: math.prod(sample.shape)].reshape(sample.shape), sample)

    def _decode(self, batch: _Pending, row: int, reason: str) -> DaliInput:
        """Decode the clip of a row here, by PyAV, as DALI can't; blank it, as any, where that fails too."""
        slot = self._arena.slot(batch.slots[row])
        (sample,) = self._source.load(batch.place[0], [self._position(batch, row)], [slot], encoded=False)
        batch.samples[row] = sample
        if sample.is_real:
            path = Path(self._stream.root) / self._index[sample.video_id].path
            _log.warning("%s: DALI can't decode it (%s): decoded by PyAV", path, reason)
        return self._row(batch, row)

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


def num_workers(spec: LoaderSpec) -> int:
    """Decoding processes of a loader."""
    return usable_cpus() if spec.workers == "auto" else spec.workers


def _num_threads(spec: LoaderSpec, stream: ClipStream) -> int:
    """DALI's threads. Each keeps one NVDEC session busy at a time: two for each engine let none of them wait."""
    if spec.threads != "auto":
        return spec.threads
    caps = (stream.limits.caps if stream.limits else None) or ()
    return max(usable_cpus(), 2 * max((item.engines for item in caps), default=0))

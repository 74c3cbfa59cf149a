"""ClipPrefetcher: makes the batches of a ClipLoader ahead of time, with the worker processes and DALI.

The way of a batch: tasks go to the worker pool, the workers write samples into slots of the shared memory, DALI reads
the slots in place and gives the clips. While the caller works with one batch, DALI augments the next one, and the
workers decode those after it. Which clips DALI decodes is decided when the batch is planned.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

from pipelines.dali.decoding_memory import DecodingMemory
from pipelines.dali.graph_runner import DaliInput, GraphRunner
from pipelines.dali.share_finder import BatchPlan, ShareFinder, is_shared_out
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
    """The cost of loading since the loader was made. Seconds are wall time; those of the workers are added up.

    `read_seconds`, `decode_seconds` and `convert_seconds` are spent in the workers; convert is the conversion to RGB
    with the crop and FFmpeg's scaling. `ship_seconds` is the rest of the workers' time: planning clips and looking up
    the index. The loader waited `augment_seconds` for DALI and `wait_seconds` for the workers. `encoded_clips` counts
    the clips that DALI decoded, `io_retries` how often a file was read again after an error of the system.
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
    io_retries: int = 0


@dataclass
class _Pending:
    """A batch that is being made: the slots and samples of its rows, and how many samples are still missing.

    It is made by `plan`. A `trial` is timed, with no other batch in DALI. `room` is the GPU memory in bytes that is
    left for decoding more of its clips there.
    """

    place: BatchPlace
    slots: list[int]
    samples: list[Sample | None]
    missing: int
    plan: BatchPlan
    trial: bool
    room: float


_RowOfBatch = tuple[_Pending, int]  # a batch and a row of it


class ClipPrefetcher:
    """Owns the workers, the shared memory and the DALI pipeline of one loader, and the batches that are being made."""

    def __init__(
        self,
        stream: ClipStream,
        index: VideoIndex,
        spec: LoaderSpec,
        num_batches: int,
        finder: ShareFinder,
        statistics: LoaderStatistics,
    ) -> None:
        """Start the worker processes; an epoch has `num_batches`. Raises EnvironmentProblem if they can't be started.

        `finder` decides what DALI decodes; `statistics` is updated with the cost of loading.
        """
        self._stream, self._index, self._num_batches, self._statistics = stream, index, num_batches, statistics
        self._finder = finder
        self._sampler = stream.sampler(index)
        source = clip_source(stream, index.too_damaged(stream.max_corrupt_fraction))
        rows = spec.prefetch + stream.repeats
        self._arena = Arena(rows * stream.batch_size, source.slot_bytes(index))
        self.pool = WorkerPool(source, self._arena, workers=num_workers(spec), timeout_seconds=spec.timeout_seconds)
        self._runner = GraphRunner(stream, threads=finder.settled_threads)
        self._memory = DecodingMemory(stream, index)
        self._max_pending = rows
        self._free = list(range(self._arena.slots))
        self._pending: deque[_Pending] = deque()
        self._todo: deque[tuple[_RowOfBatch, ...]] = deque()  # decode passes that have no slots yet
        self._at: dict[int, tuple[_RowOfBatch, ...]] = {}  # number of a task -> the rows that it makes
        self._tasks = 0
        self._next: BatchPlace | None = None  # the batch after the pending ones; None: there is none
        self._last: float | None = None  # when the batch before was given, in seconds; None: there was none

    def start(self, place: BatchPlace) -> None:
        """Start to make the batch at `place` and those that follow, without waiting for them."""
        self._go_to(place)

    def batch_at(self, place: BatchPlace) -> tuple[Any, list[Sample]]:
        """(clips, samples) of the batch at `place`: the clips as a DLPack object, and the Sample of each row."""
        if not self._pending or self._pending[0].place != place:
            self._go_to(place)
        head = self._pending[0]
        begin = perf_counter()
        while head.missing:
            self._collect(block=True)
        was_started = self._runner.busy
        if not was_started:
            self._runner.use_threads(head.plan.threads)
        waited, cpu = perf_counter(), process_time()
        if not was_started:
            self._augment(head)
        clips = self._runner.finish(lambda row, reason: self._decode(head, row, reason))
        done = perf_counter()
        samples = [sample for sample in head.samples if sample is not None]
        encoded = sum(bool(sample.numbers) for sample in samples)
        if self._finder.routing is None:
            if head.trial:
                self._finder.note_trial(encoded, done - waited, process_time() - cpu)
            self._finder.note_batch(head.plan, None if self._last is None else done - self._last)
            self._tell_routing()
        self._last = done
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

    def _tell_routing(self) -> None:
        """Log which decoder is used, if that is known now."""
        if self._finder.routing is not None:
            _log.info("%s", self._finder.routing)

    def close(self) -> None:
        """End the processes at once."""
        self.pool.close()
        self._arena.close()

    def _go_to(self, place: BatchPlace) -> None:
        """Drop the batches that are being made and begin at `place`."""
        self._runner.drop()
        self._finder.forget_planned()
        self._last = None
        self.pool.cancel()
        for batch in self._pending:
            self._release(batch)
        self._pending.clear()
        self._todo.clear()
        self._at.clear()
        self._next = place
        self._dispatch()

    def _dispatch(self) -> None:
        """Give tasks to the workers as long as there are free slots for their clips."""
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
            encoded = self._is_encoded(rows)
            self.pool.submit(Task(self._tasks, self._arena.generation, epoch, positions, slots, encoded))

    def _plan_round(self, epoch: int, first: int) -> None:
        """Plan the batch `first` and, with repeats, the other batches of its round, which share its decode passes."""
        stream = self._stream
        end = (first // stream.repeats + 1) * stream.repeats
        size = len(self._sampler.positions(first, stream.batch_size))
        plan = self._finder.plan()
        room = self._memory.room
        batches = [
            _Pending((epoch, number), [-1] * size, [None] * size, size, plan, plan.is_trial and number == first, room)
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
        """Whether two rows are crops of the same frames, which PyAV then decodes once for both; False with DALI."""
        crops = self._sampler.crops
        if crops == 1 or self._runner.decodes:
            return False
        return self._position(batch, one) // crops == self._position(batch, other) // crops

    def _is_encoded(self, rows: Sequence[_RowOfBatch]) -> bool:
        """Whether DALI is to decode the clips of `rows`, which are of one video, if it can. Takes the room for them."""
        batch, row = rows[0]
        if not self._runner.decodes or not is_shared_out(row, batch.plan.share):
            return False
        failed = self._runner.failed_videos
        if not failed and self._memory.room == math.inf:
            return True
        plans = [self._sampler.plan(batch.place[0], self._position(batch, row)) for batch, row in rows]
        if plans[0].video_id in failed:
            return False
        needs = [self._memory.of_clip(plan) for plan in plans]
        for (batch, _), plan, need in zip(rows, plans, needs, strict=True):
            if need > batch.room:
                self._memory.tell_once(plan)
                return False
        for (batch, _), need in zip(rows, needs, strict=True):
            batch.room -= need
        return True

    def _collect(self, *, block: bool) -> None:
        for reply in self.pool.collect(block=block):
            self._note(reply)

    def _note(self, reply: Reply) -> None:
        for (batch, row), sample in zip(self._at.pop(reply.number), reply.samples, strict=True):
            batch.samples[row] = sample
            batch.missing -= 1
        if reply.samples:
            encoded = any(sample.numbers for sample in reply.samples)
            self._finder.note_clips(len(reply.samples), reply.seconds, encoded=encoded)
        cost, total = reply.statistics, self._statistics
        total.read_seconds += cost.read_seconds
        total.decode_seconds += cost.decode_seconds
        total.convert_seconds += cost.convert_seconds
        total.ship_seconds += reply.seconds - cost.read_seconds - cost.decode_seconds - cost.convert_seconds
        total.bytes_read += cost.bytes_read
        total.packets += cost.packets
        total.io_retries += cost.io_retries

    def _augment(self, batch: _Pending) -> None:
        self._runner.use_threads(batch.plan.threads)
        self._runner.start([self._row(batch, row) for row in range(len(batch.slots))])

    def _row(self, batch: _Pending, row: int) -> DaliInput:
        sample = batch.samples[row]
        assert sample is not None
        slot = self._arena.slot(batch.slots[row])
        return DaliInput(slot[: math.prod(sample.shape)].reshape(sample.shape), sample)

    def _decode(self, batch: _Pending, row: int, reason: str) -> DaliInput:
        """The row decoded by PyAV; black if PyAV fails too. Tells `reason`, why DALI failed on it."""
        self._tasks += 1
        self._at[self._tasks] = ((batch, row),)
        batch.missing += 1
        place = batch.place[0], (self._position(batch, row),), (batch.slots[row],)
        self.pool.submit(Task(self._tasks, self._arena.generation, *place))
        while batch.missing:
            self._collect(block=True)
        sample = batch.samples[row]
        if sample is not None and sample.is_real and reason:
            name = self._stream.name_of(sample.video_id, self._index[sample.video_id].path)
            _log.warning("%s: DALI can't decode this video (%s): PyAV decodes it", name, reason)
        return self._row(batch, row)

    def _position(self, batch: _Pending, row: int) -> int:
        """The position of the clip of a row in its epoch, counted over all shards."""
        return self._sampler.positions(batch.place[1], self._stream.batch_size)[row]

    def _release(self, batch: _Pending) -> None:
        for slot, sample in zip(batch.slots, batch.samples, strict=True):
            if sample is not None:
                self._arena.trim(slot, math.prod(sample.shape))
            if slot >= 0:
                self._free.append(slot)


def num_workers(spec: LoaderSpec) -> int:
    """The number of decoding processes of a loader."""
    return usable_cpus() if spec.workers == "auto" else spec.workers

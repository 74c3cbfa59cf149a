"""What is measured: each contender makes batches for as long as it is asked, and says what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.loader.handover import make_loader, routing_of, wait_for
from bench.loader.peer_loader import PeerLoader
from bench.loader.peers import Peer
from bench.reporting.figures import DecoderUse
from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, ShardSpec
from pipelines.stream import ClipStream, Sample
from pipelines.video.decoder import Cut
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import DecodedSource
from pipelines.workers.pool import WorkerPool
from pipelines.workers.worker import Task

_TIMEOUT_SECONDS = 60.0
_STAGES = ("read", "decode", "convert", "ship", "augment")


@dataclass(frozen=True)
class Work:
    """What all contenders of a run do: clips of `split` (None: all) in the same order with the same draws."""

    index: VideoIndex
    clip: ClipSpec
    augment: AugmentSpec
    workers: int
    batch_size: int
    seed: int = 0
    split: str | None = None


class ClipLoaderContender:
    """The clip loader, epoch after epoch. A batch counts once it is ready, where it was wanted: none is copied."""

    def __init__(self, name: str, work: Work, *, device: str = "cpu", **options: Any) -> None:
        """A contender; `options` of LoaderSpec have the last word.

        Raises EnvironmentProblem where this machine has no such device.
        """
        self.name, self.device = name, device
        values = {"batch_size": work.batch_size, "seed": work.seed, "workers": work.workers, **options}
        spec = LoaderSpec.model_validate(values)
        self.loader = make_loader(work.index, work.clip, work.augment, spec, split=work.split, device=device)
        self._batches = endless(self.loader)

    def make(self, batches: int) -> int:
        """Clips made, after `batches` more batches."""
        clips = 0
        for _ in range(batches):
            info = wait_for(next(self._batches).clips)
            if info.gpu != self.device.startswith("gpu"):
                raise EnvironmentProblem(f"{self.name}: clips on the {'GPU' if info.gpu else 'CPU'}, not {self.device}")
            clips += info.shape[0]
        return clips

    def costs(self) -> dict[str, float]:
        """Bytes of file read so far."""
        return {"bytes_read": self.loader.statistics.bytes_read}

    @property
    def routing(self) -> DecoderUse | None:
        """Who decodes, as far as the loader has found out."""
        return routing_of(self.loader)

    def stage_seconds(self) -> dict[str, float]:
        """Wall seconds of each stage so far, and of the waits for workers."""
        statistics = vars(self.loader.statistics)
        return {stage: statistics[f"{stage}_seconds"] for stage in (*_STAGES, "wait")}

    def close(self) -> None:
        """End its processes."""
        self.loader.close()


class CeilingSource(DecodedSource):
    """Decodes and converts what a clip needs, whole frames to RGB, and throws it away: what no loader can beat."""

    def load(
        self, epoch: int, positions: Sequence[int], slots: Sequence[NDArray[np.uint8]], *, encoded: bool = False
    ) -> list[Sample]:
        """The samples at `positions` of `epoch`; nothing is written."""
        index, sampler = self._open()
        plan = sampler.plan(epoch, positions[0])
        nothing = np.empty((len(plan.frames), 0, 0, 3), np.uint8)
        self._reader.statistics = self._statistics
        self._reader.fill(index[plan.video_id], [Cut(plan.frames, (0, 0, 0, 0), None, nothing)], root=str(index.root))
        return [Sample((0,), plan.video_id, plan.label, True, (0, 0), (0, 0), False)]


class CeilingContender:
    """Decoding and colour conversion alone, on as many processes; no crop, no resize, nothing handed over."""

    name = "decode only (ceiling)"

    def __init__(self, work: Work) -> None:
        stream = ClipStream(
            str(work.index.path), str(work.index.root), work.split, work.clip, work.augment, ShardSpec(),
            work.batch_size, work.seed, train=True,
        )  # fmt: skip
        self._batch_size = work.batch_size
        self._num_clips = stream.sampler(work.index).num_clips // work.batch_size * work.batch_size
        self._arena = Arena(1, 1)
        self._pool = WorkerPool(
            CeilingSource(stream), self._arena, workers=work.workers, timeout_seconds=_TIMEOUT_SECONDS
        )
        self._given = self._made = self._bytes = 0

    def make(self, batches: int) -> int:
        """Clips made, after `batches` more batches' worth; three batches are always on their way, as in the loader."""
        goal = self._made + batches * self._batch_size
        while self._made < goal:
            while self._given < self._made + 3 * self._batch_size:
                epoch, position = divmod(self._given, self._num_clips)
                self._given += 1
                self._pool.submit(Task(self._given, 0, epoch, (position,), (0,)))
            for reply in self._pool.collect(block=True):
                self._made += 1
                self._bytes += reply.statistics.bytes_read
        return batches * self._batch_size

    def costs(self) -> dict[str, float]:
        """Bytes of file read so far."""
        return {"bytes_read": self._bytes}

    def close(self) -> None:
        """End its processes."""
        self._pool.close()
        self._arena.close()


class PeerContender:
    """A peer as a PyTorch DataLoader."""

    def __init__(self, peer: Peer, work: Work) -> None:
        self.name = peer.name
        self.loader = PeerLoader(
            peer, work.index, work.clip, work.augment, split=work.split, seed=work.seed, batch_size=work.batch_size,
            workers=work.workers,
        )  # fmt: skip

    def make(self, batches: int) -> int:
        """Clips made, after `batches` more batches."""
        return sum(len(next(self.loader)) for _ in range(batches))

    def costs(self) -> dict[str, float]:
        """Nothing: a peer does not count what it reads."""
        return {}

    def close(self) -> None:
        """End its processes."""
        self.loader.close()


def endless(loader: ClipLoader) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    return (batch for _ in count() for batch in loader)

"""The loader's measurements under pytest-benchmark: `pytest bench --benchmark-only`.

Each is a stage or a whole loader over the same clips, bench's own, or those of the folder R3D_BENCH_DATA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.loader.contenders import CeilingContender, ClipLoaderContender, PeerContender, Work
from bench.loader.peers import PEERS, Peer, find_peers
from bench.measuring.turns import WARM_BATCHES, Contender
from bench.videos.selection import select_videos
from bench.videos.synthesis import make_clips
from pipelines.dali.graph import ClipPipeline
from pipelines.index.video_index import VideoIndex
from pipelines.machine.cpus import usable_cpus
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream
from pipelines.video.decoder import FrameReader
from pipelines.video.packets import select
from pipelines.video.probe import probe_video
from pipelines.video.remuxer import remux
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import DecodedSource

BATCH = 16
SAMPLINGS = ("segments", "consecutive")


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The clips of all measurements."""
    folder = tmp_path_factory.mktemp("bench")
    root = os.environ.get("R3D_BENCH_DATA")
    if root is None:
        make_clips(folder / "clips", 32)
    return select_videos(Path(root) if root else folder / "clips", folder).index


@pytest.fixture(params=SAMPLINGS)
def work(request: pytest.FixtureRequest, index: VideoIndex) -> Work:
    """What contenders do, at either sampling."""
    return Work(index, ClipSpec(sampling=request.param), AugmentSpec(), usable_cpus(), BATCH)


def stream(work: Work, **augment: Any) -> ClipStream:
    """The clips of `work`, one after the other."""
    spec = AugmentSpec.model_validate({**work.augment.model_dump(), **augment})
    return ClipStream(
        str(work.index.path), str(work.index.root), None, work.clip, spec, ShardSpec(), BATCH, 0, train=True
    )


def time_batches(benchmark: Any, contender: Contender, *, rounds: int = 30) -> None:
    """Time `contender` making a batch, after those that empty what it makes ahead; it is closed."""
    try:
        contender.make(WARM_BATCHES)
        assert benchmark.pedantic(contender.make, args=(1,), rounds=rounds) == BATCH
    finally:
        contender.close()


def positions(work: Work) -> Iterator[int]:
    """The positions of an epoch, over and over."""
    while True:
        yield from range(len(work.index))


@pytest.mark.benchmark(group="whole loader, a batch")
@pytest.mark.parametrize("resize", ["decoder", "graph"])
def test_loader(benchmark: Any, work: Work, resize: str) -> None:
    """One batch of the loader."""
    augment = AugmentSpec.model_validate({"resize": resize})
    time_batches(benchmark, ClipLoaderContender("loader", replace(work, augment=augment)))


@pytest.mark.benchmark(group="whole loader, a batch")
def test_ceiling(benchmark: Any, work: Work) -> None:
    """A batch's worth of decoding and converting alone."""
    time_batches(benchmark, CeilingContender(work))


@pytest.mark.benchmark(group="whole loader, a batch")
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer(benchmark: Any, work: Work, peer: Peer) -> None:
    """One batch of a loader that a user would pick instead."""
    _, missing = find_peers([peer.name])
    if missing:
        pytest.skip(f"not installed: {missing[peer.name]}")
    time_batches(benchmark, PeerContender(peer, work), rounds=10)


@pytest.mark.benchmark(group="stages, a clip")
@pytest.mark.parametrize("resize", ["decoder", "graph"])
def test_source(benchmark: Any, work: Work, resize: str) -> None:
    """A clip read, decoded and converted into its slot, in this process."""
    source = DecodedSource(stream(work, resize=resize))
    arena, at = Arena(1, source.slot_bytes(work.index)), positions(work)
    (sample,) = benchmark(lambda: source.load(0, [next(at)], [arena.slot(0)]))
    assert sample.is_real
    arena.close()


@pytest.mark.benchmark(group="stages, a clip")
def test_select(benchmark: Any, work: Work) -> None:
    """The packets of a clip chosen."""
    at = positions(work)
    sampler = stream(work).sampler(work.index)
    plans = [sampler.plan(0, position) for position in range(len(work.index))]
    tables = [work.index[plan.video_id].packets for plan in plans]

    def one() -> int:
        position = next(at)
        return len(select(tables[position], plans[position].frames))

    assert benchmark(one) > 0


@pytest.mark.benchmark(group="stages, a clip")
def test_plan(benchmark: Any, work: Work) -> None:
    """A clip decided."""
    at = positions(work)
    sampler = ClipSampler(work.index.columns(), work.clip, work.augment, seed=0, train=True, shard=ShardSpec())
    assert benchmark(lambda: sampler.plan(0, next(at))).is_real


@pytest.mark.benchmark(group="stages, a clip")
def test_remux(benchmark: Any, work: Work) -> None:
    """A clip's packets made a small video in memory."""
    at = positions(work)
    sampler = stream(work).sampler(work.index)
    root = str(work.index.root)

    def one() -> int:
        plan = sampler.plan(0, next(at))
        return len(remux(work.index[plan.video_id], np.unique(plan.frames), root=root).data)

    assert benchmark(one) > 0


@pytest.mark.benchmark(group="augment, a batch of 16")
@pytest.mark.parametrize("resize", ["decoder", "graph"])
@pytest.mark.parametrize("threads", sorted({1, usable_cpus()}))
def test_augment(benchmark: Any, index: VideoIndex, resize: str, threads: int) -> None:
    """A batch through DALI."""
    work = Work(index, ClipSpec(), AugmentSpec(), 1, BATCH)
    clips = stream(work, resize=resize)
    source = DecodedSource(clips)
    arena = Arena(BATCH, source.slot_bytes(index))
    samples = [source.load(0, [i], [arena.slot(i)])[0] for i in range(BATCH)]
    frames = [arena.slot(i)[: int(np.prod(s.shape))].reshape(s.shape) for i, s in enumerate(samples)]
    pipeline = ClipPipeline(clips, threads=threads)

    def one() -> Any:
        pipeline.feed(frames, samples)
        return pipeline.clips()

    assert np.from_dlpack(benchmark(one)).shape == (BATCH, 3, 16, 112, 112)
    arena.close()


@pytest.mark.benchmark(group="index, a file")
def test_probe(benchmark: Any, index: VideoIndex) -> None:
    """A file indexed."""
    at = iter(range(10**9))
    paths = [index[i].path for i in range(len(index))]
    record = benchmark(lambda: probe_video(paths[next(at) % len(paths)], root=index.root))
    assert record.num_frames > 0


@pytest.mark.benchmark(group="stages, a clip")
def test_read_frames(benchmark: Any, index: VideoIndex) -> None:
    """16 frames of a video, whole and exact, as `read_frames` gives them."""
    reader, record = FrameReader(), index[0]
    frames = np.linspace(0, record.num_frames - 1, 16).astype(int)
    assert benchmark(lambda: reader.read(record, frames, root=str(index.root))).shape[0] == 16

"""The loaders of peers give what ours gives, but for their decoder."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer_readers import BY_NAME, CLIP, Frames, needs, tinted

from bench.loader.peer_loader import PeerLoader
from bench.loader.peers import Peer
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import ClipSampler
from pipelines.specs import AugmentSpec, ShardSpec
from pipelines.video.decoder import read_frames

AUGMENT = AugmentSpec(size_px=40)


def expected_clip(index: VideoIndex, sampler: ClipSampler, k: int, pixels: Frames | None = None) -> Any:
    """Clip k made in the plainest way, in double precision after the resize."""
    torch: Any = importlib.import_module("torch")
    plan = sampler.plan(*divmod(k, sampler.num_clips))
    if pixels is None:
        pixels = read_frames(index[plan.video_id], plan.frames, root=index.root)
    y, x, h, w = plan.box
    planes = torch.from_numpy(pixels[:, y : y + h, x : x + w].transpose(0, 3, 1, 2).copy())
    size = sampler.augment.size_px
    small = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True).numpy()
    if plan.mirror:
        small = small[..., ::-1]
    mean, std = (np.array(three).reshape(1, 3, 1, 1) for three in (sampler.augment.mean, sampler.augment.std))
    return ((small / 255.0 * sampler.augment.value_max - mean) / std).transpose(1, 0, 2, 3)


def train_sampler(index: VideoIndex) -> ClipSampler:
    return ClipSampler(index.columns("train"), CLIP, AUGMENT, seed=3, train=True, shard=ShardSpec())


def load(peer: Peer, index: VideoIndex, *, workers: int, batch_size: int = 4) -> PeerLoader:
    return PeerLoader(peer, index, CLIP, AUGMENT, split="train", seed=3, batch_size=batch_size, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", BY_NAME)
def test_batches_are_the_plans_clips_over_several_epochs(index: VideoIndex, name: str, workers: int) -> None:
    peer = needs(name)
    sampler = train_sampler(index)
    with load(peer, index, workers=workers) as loader:
        for number, batch in enumerate(itertools.islice(loader, 5)):  # 20 clips of 6 videos
            assert batch.shape == (4, 3, 6, 40, 40)
            assert str(batch.dtype) == "torch.float32"
            assert batch.is_contiguous()
            want = np.stack([expected_clip(index, sampler, number * 4 + i) for i in range(4)])
            away = np.abs(batch.numpy() - want)
            assert (away.mean() if peer.extracts else away.max()) < 0.1, name
            if name == "PyAV naive":
                assert away.max() < 1e-5
        assert loader.failures == 0


def test_close_ends_the_workers_and_removes_the_files(index: VideoIndex, tmp_path: Path, monkeypatch: Any) -> None:
    peer = needs("jpg frames")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(multiprocessing.active_children())
    loader = load(peer, index, workers=2)
    next(loader)
    mine = set(multiprocessing.active_children()) - before
    assert len(mine) == 2
    assert len(list(tmp_path.glob("r3d-fast-*.tmp/*/*.jpg"))) == sum(index.columns().num_frames)
    loader.close()
    loader.close()
    assert not any(process.is_alive() for process in mine)
    assert not list(tmp_path.glob("r3d-fast-*.tmp"))


def test_a_clip_that_raises_is_blank_and_counted(index: VideoIndex) -> None:
    needs("PyAV naive")
    sampler = train_sampler(index)
    bad = next(i for i in range(6) if index[i].path == "a/2.avi")
    with load(Peer("tint", (), "", tinted), index, workers=1, batch_size=6) as loader:
        for epoch in range(2):
            batch = next(loader)
            blank = [i for i in range(6) if sampler.plan(epoch, i).video_id == bad]
            assert [i for i in range(6) if not batch[i].any()] == blank
            assert loader.failures == epoch + 1

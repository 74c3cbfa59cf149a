"""Clips that DALI decodes, beside those it leaves to PyAV: the same, but for the rounding of two colour converters."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import read_stamp, write_stamped_video
from numpy.typing import NDArray
from waiting import is_asleep, wait_until

from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec

CODECS = {"mjpeg": "avi", "vp8": "webm", "vp9": "mkv"}
OTHERS = {"mpeg4": "avi", "h264": "mp4"}  # DALI has none of these on the CPU
LENGTHS = (5, 22, 40)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 stamped videos of five codecs and sizes, some shorter than a clip, some with odd sizes."""
    root = tmp_path_factory.mktemp("encoded") / "videos"
    for k, (codec, suffix) in enumerate({**CODECS, **OTHERS}.items()):
        folder = root / codec
        folder.mkdir(parents=True)
        for n, length in enumerate(LENGTHS):
            size = (112 + 16 * k, 112 + (15 if codec in CODECS else 16) * n)
            write_stamped_video(folder / f"v{n}.{suffix}", codec=codec, num_frames=length, size=size)
    return root


@pytest.fixture(scope="module")
def index(root: Path) -> VideoIndex:
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


def batches(index: VideoIndex, decoder: str, *, train: bool, epochs: int = 1, **options: Any) -> list[Batch]:
    size_px = options.pop("size_px", 56)
    pixels = AugmentSpec(size_px=size_px, resize="graph", value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3, mirror=0.5)
    spec = LoaderSpec.model_validate({"batch_size": 3, "workers": 1, "threads": 1, **options, "decoder": decoder})
    with ClipLoader(index, clip=ClipSpec(num_frames=8), augment=pixels, loader=spec, split=None, train=train) as loader:
        return [batch for _ in range(epochs) for batch in loader]


def promise(monkeypatch: pytest.MonkeyPatch, *codecs: str) -> None:
    """Have it believed that DALI decodes all of `codecs` exactly: a driver that says more than is true."""
    monkeypatch.setattr("pipelines.dali.routing.limits_of_device", lambda device: DaliLimits(frozenset(codecs)))
    monkeypatch.setattr("pipelines.dali.routing.wrong_frames", lambda record, root, device: "")


def pixels(batch: Batch) -> NDArray[np.float32]:
    return np.from_dlpack(batch.clips)


def assert_alike(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert (a.video_ids.tolist(), a.labels.tolist(), a.position) == (
            b.video_ids.tolist(),
            b.labels.tolist(),
            b.position,
        )
        assert a.is_real.tolist() == b.is_real.tolist()
        error = np.abs(pixels(a) - pixels(b))[a.is_real]
        assert error.mean() < 2.5  # of 255: FFmpeg's default scaler against the accurate one that DALI asks for
        assert (error > 32).mean() < 0.02


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("workers", [0, 2])
def test_dali_and_pyav_give_the_same_clips_over_many_batches(index: VideoIndex, train: bool, workers: int) -> None:
    dali = batches(index, "dali", train=train, epochs=8, workers=workers)
    assert len(dali) == 40
    kinds = [{index[i].codec in CODECS for i in batch.video_ids} for batch in dali]
    assert ({True, False} in kinds) == train  # in one batch
    assert_alike(dali, batches(index, "pyav", train=train, epochs=8))


def test_frames_that_dali_decodes_show_their_numbers(tmp_path: Path) -> None:
    for codec, suffix in CODECS.items():
        (tmp_path / "v" / codec).mkdir(parents=True)
        for n in range(3):
            write_stamped_video(
                tmp_path / "v" / codec / f"{n}.{suffix}", codec=codec, num_frames=25 + n, size=(112, 112)
            )
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    whole = AugmentSpec(
        size_px=112, scales=(1.0,), mirror=0.0, value_max=255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    spec = LoaderSpec(batch_size=3, workers=1, decoder="dali")
    seen = 0
    with ClipLoader(index, clip=ClipSpec(num_frames=6), augment=whole, loader=spec, split=None, train=True) as loader:
        for epoch in range(3):
            for number, batch in enumerate(loader.epoch(epoch)):
                for i, plan in enumerate(loader.sampler.batch(epoch, number, 3)):
                    frames = pixels(batch)[i].transpose(1, 2, 3, 0).round().clip(0, 255).astype(np.uint8)
                    assert [read_stamp(frame) for frame in frames] == plan.frames.tolist()
                    seen += 1
    assert seen == 27


def test_repeats_work_with_either_decoder(index: VideoIndex) -> None:
    dali = batches(index, "dali", train=True, repeats=2)
    assert len(dali) == 10
    assert_alike(dali, batches(index, "pyav", train=True, repeats=2))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_clip_that_dali_fails_on_is_a_blank_row_and_no_other_is_lost(
    index: VideoIndex, root: Path, tmp_path: Path, train: bool
) -> None:
    path = root / "mjpeg" / "v2.avi"
    status, whole = path.stat(), path.read_bytes()
    number = next(i for i in range(len(index)) if index[i].path == "mjpeg/v2.avi")
    table = index[number].packets
    noise = bytearray(whole)
    for offset, size in zip(table.offset.tolist(), table.size.tolist(), strict=True):
        noise[offset : offset + size] = np.random.default_rng(offset).bytes(size)
    intact = batches(index, "dali", train=train, epochs=2)
    try:
        path.write_bytes(noise)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        found = batches(index, "dali", train=train, epochs=2)
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [bad.video_id for batch in found for bad in batch.bad] == [number] * 2
    assert all(bad.reason.startswith(f"{path}: does not decode: ") for batch in found for bad in batch.bad)
    assert all("\n" not in bad.reason for batch in found for bad in batch.bad)
    for a, b in zip(found, intact, strict=True):
        good = a.video_ids != number
        assert a.is_real.tolist() == good.tolist()
        assert np.array_equal(pixels(a)[good], pixels(b)[good])


def test_file_that_is_gone_is_a_bad_clip(index: VideoIndex, root: Path) -> None:
    path = root / "vp8" / "v1.webm"
    path.rename(path.with_suffix(".away"))
    try:
        found = batches(index, "dali", train=True)
    finally:
        path.with_suffix(".away").rename(path)
    assert [bad.reason for batch in found for bad in batch.bad] == [f"{path}: can't be read: No such file or directory"]


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_clip_that_dali_refuses_is_decoded_by_pyav(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, train: bool
) -> None:
    """As a driver may that says it takes a codec: here DALI is given MPEG-4, which it does not have on the CPU."""
    expected = batches(index, "dali", train=train)
    promise(monkeypatch, *CODECS, "mpeg4")
    with caplog.at_level(logging.WARNING, "pipelines"):
        found = batches(index, "dali", train=train)
    for a, b in zip(found, expected, strict=True):
        assert a.bad == ()
        assert np.array_equal(pixels(a), pixels(b))
    told = [record.getMessage() for record in caplog.records if record.name == "pipelines.prefetch"]
    assert sorted(message.split(": ", 1)[0] for message in told) == [
        str(Path(index.root) / f"mpeg4/v{n}.avi") for n in range(3)
    ]
    assert all(message.endswith(": PyAV decodes it") for message in told)


def test_leaving_an_epoch_while_dali_fails_on_its_next_batch(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    promise(monkeypatch, *CODECS, *OTHERS)
    spec = LoaderSpec(batch_size=3, workers=1, threads=1, decoder="dali")
    augment = AugmentSpec(size_px=56, resize="graph")
    with ClipLoader(index, clip=ClipSpec(num_frames=8), augment=augment, loader=spec, split=None, train=True) as loader:
        for number in range(4):
            batches = loader.epoch(number)
            next(batches)
            wait_until(lambda: all(map(is_asleep, loader.worker_pids)))  # what follows is decoded
            assert next(batches).bad == ()  # and the batch after this one is in DALI


@pytest.mark.real
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_all_real_oddities_in_one_batch(oddities: VideoIndex, train: bool) -> None:
    assert len(oddities) >= 6
    dali = batches(oddities, "dali", train=train, batch_size=len(oddities), size_px=112)
    assert_alike(dali, batches(oddities, "pyav", train=train, batch_size=len(oddities), size_px=112))
    assert dali[0].is_real.all()


@pytest.mark.real
def test_a_real_mjpeg_video_is_the_same_through_dali(real_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    (tmp_path / "v" / "a" / "real.avi").symlink_to(real_clips / "odd" / "mjpeg_320x600.avi")
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0, follow_links=True)
    for train in (True, False):
        one = batches(index, "dali", train=train, epochs=20, batch_size=1, size_px=112)
        assert_alike(one, batches(index, "pyav", train=train, epochs=20, batch_size=1, size_px=112))

"""DALI's decoder against PyAV's, frame by frame: on the CPU, and by NVDEC where there is a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from clips import read_stamp, write_stamped_video
from devices import DECODED, DEVICES, PIXELS, assert_same_clips, load, on_host, skip_unless_decoded, write
from numpy.typing import NDArray

from pipelines.dali.decoder_check import decode_by_dali, wrong_frames
from pipelines.dali.routing import limits_of_device
from pipelines.index.video_index import VideoIndex
from pipelines.specs import ClipSpec
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import remux


def difference(record: VideoRecord, frames: Sequence[int] | NDArray[np.int32], device: str, root: str = "") -> float:
    """Mean absolute difference, of 255, between DALI's frames and PyAV's."""
    video = remux(record, frames, root=root)
    found = decode_by_dali(video.data, video.frames, device)
    expected = read_frames(record, frames, root=root)
    assert found.shape == expected.shape
    return float(np.abs(found.astype(np.int16) - expected).mean())


@pytest.mark.parametrize(("device", "name"), DECODED, indirect=["device"])
def test_each_frame_shows_its_number(tmp_path: Path, device: str, name: str) -> None:
    record = probe_video(write(tmp_path, name))
    skip_unless_decoded(record, device)
    rng = np.random.default_rng(0)
    count = record.num_frames
    for wanted in ([0], [count - 1], range(count), *(np.unique(rng.integers(0, count, 16)) for _ in range(8))):
        frames = np.array(wanted, np.int32)
        video = remux(record, frames)
        found = decode_by_dali(video.data, video.frames, device)
        assert [read_stamp(frame) for frame in found] == frames.tolist()
    assert difference(record, range(count), device) < 3.0
    assert wrong_frames(record, "", device) == ""


@pytest.mark.parametrize(("device", "name"), DECODED, indirect=["device"])
def test_clips_of_many_batches_show_their_numbers(tmp_path: Path, device: str, name: str) -> None:
    """Decoders have given wrong frames from some batch on only (DALI #4709)."""
    path = write(tmp_path / "v" / "a", name)
    for number in range(1, 4):
        path.with_stem(f"copy{number}").write_bytes(path.read_bytes())
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    skip_unless_decoded(index[0], device)
    side = min(index[0].width, index[0].height)
    whole = PIXELS.model_copy(update={"size_px": side, "scales": (1.0,), "mirror": 0.0, "max_scale_step": 0})
    seen = 0
    with load(index, "dali", device, clip=ClipSpec(num_frames=6), augment=whole) as loader:
        for epoch in range(25):
            for number, batch in enumerate(loader.epoch(epoch)):
                clips = on_host(batch.clips).transpose(0, 2, 3, 4, 1).round().clip(0, 255).astype(np.uint8)
                for clip, plan in zip(clips, loader.sampler.batch(epoch, number, 4), strict=True):
                    y, x = plan.box[:2]
                    if (y, x) == (0, 0):  # else the number lies elsewhere
                        assert [read_stamp(frame) for frame in clip] == plan.frames.tolist()
                        seen += 1
        assert loader.statistics.encoded_clips == 100
    assert seen > 5


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_videos_of_many_sizes_in_one_batch(tmp_path: Path, device: str) -> None:
    """Also sizes that are coded alike and shown otherwise, in both orders: DALI looks its decoders up by size."""
    codec, suffix = ("mjpeg", "avi") if device == "cpu" else ("h264", "mp4")
    (tmp_path / "v" / "a").mkdir(parents=True)
    for number, size in enumerate([(320, 240), (320, 234), (176, 240), (318, 240), (320, 230), (240, 320), (320, 240)]):
        write_stamped_video(tmp_path / "v" / "a" / f"{number}.{suffix}", codec=codec, size=size, num_frames=20)
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    skip_unless_decoded(index[0], device)
    options = {"train": True, "batch_size": 7}
    with load(index, "dali", device, **options) as ours, load(index, "pyav", "cpu", **options) as plain:
        for epoch in range(20):
            assert_same_clips(list(ours.epoch(epoch)), list(plain.epoch(epoch)))
        assert ours.statistics.encoded_clips >= 20 * (7 if device == "cpu" else 5)


@pytest.mark.real
@pytest.mark.gpu
def test_nvdec_decodes_the_real_clips_exactly(real_videos: VideoIndex, gpu: str) -> None:
    """All 96, packed bitstreams and VOPs without a picture among them; 16 frames of each.

    Where somebody gave videos of another codec, what NVDEC refuses of these is left out.
    """
    root, found = str(real_videos.root), []
    for number in range(len(real_videos)):
        record = real_videos[number]
        refused = limits_of_device(gpu).refuses(record)
        assert refused == "" or record.codec != "mpeg4", record.path
        if refused:
            continue
        assert wrong_frames(record, root, gpu) == ""
        frames = np.linspace(0, record.num_frames - 1, 16).astype(np.int32)
        found.append(difference(record, np.unique(frames), gpu, root))
    assert found, "NVDEC takes none of these videos"
    print(
        f"NVDEC against PyAV, {len(found)} clips: mean absolute difference {min(found):.2f} to {max(found):.2f} of 255"
    )
    assert max(found) < 3.0


@pytest.mark.real
@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_oddities_are_decoded_exactly_or_left_to_pyav(oddities: VideoIndex, device: str) -> None:
    for train in (True, False):
        options = {"train": train, "batch_size": len(oddities)}
        with load(oddities, "dali", device, **options) as ours, load(oddities, "pyav", "cpu", **options) as plain:
            for epoch in range(5):
                assert_same_clips(list(ours.epoch(epoch)), list(plain.epoch(epoch)), mean=6.0)

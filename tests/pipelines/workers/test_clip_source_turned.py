"""Clips of videos that are stored turned or mirrored, or have colour tags, when DALI decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import turn_mp4, write_stamped_video
from devices import DEVICES, assert_same_clips, load, on_host

from pipelines.dali.decoder_check import decode_by_dali
from pipelines.dali.routing import limits_of_device
from pipelines.index.video_index import VideoIndex
from pipelines.specs import AugmentSpec, ClipSpec
from pipelines.video.orientation import Orientation
from pipelines.video.remuxer import remux

# a b c d of a display matrix by the code of the orientation that it means
MATRICES = {
    0: (1, 0, 0, 1),
    1: (0, 1, 1, 0),
    2: (-1, 0, 0, 1),
    3: (0, 1, -1, 0),
    4: (1, 0, 0, -1),
    5: (0, -1, 1, 0),
    6: (-1, 0, 0, -1),
    7: (0, -1, -1, 0),
}
SIZE = (176, 144)
CODECS = {"cpu": {"mjpeg": "mov", "vp9": "mp4"}, "gpu:0": {"h264": "mp4", "vp9": "mp4"}}


def turned(root: Path, device: str, *, with_others: bool = False) -> VideoIndex:
    """Videos of two codecs in all eight orientations; `with_others` also some that DALI does not decode on a CPU."""
    codecs = {**CODECS[device], **({"mpeg4": "mp4"} if with_others else {})}
    for codec, suffix in codecs.items():
        (root / codec).mkdir(parents=True)
        plain = write_stamped_video(root / codec / f"0.{suffix}", codec=codec, num_frames=20, size=SIZE)
        for code in range(1, 8):
            copy = plain.with_stem(str(code))
            copy.write_bytes(plain.read_bytes())
            turn_mp4(copy, MATRICES[code])
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_dali_and_pyav_show_turned_videos_alike_in_mixed_batches(tmp_path: Path, device: str, train: bool) -> None:
    index = turned(tmp_path / "v", device, with_others=True)
    assert {index[i].orientation for i in range(len(index))} == {Orientation.of_code(code) for code in range(8)}
    options = {"train": train, "batch_size": 8}
    with load(index, "dali", device, **options) as ours, load(index, "pyav", "cpu", **options) as plain:
        mixed = set()
        for epoch in range(4):
            one, other = list(ours.epoch(epoch)), list(plain.epoch(epoch))
            assert_same_clips(one, other, mean=3.0)
            mixed |= {len({index[i].orientation.code for i in batch.video_ids}) for batch in one}
        assert ours.statistics.encoded_clips >= 4 * 16  # all but MPEG-4, which on a CPU PyAV decodes
    assert max(mixed) > 1


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_a_turned_pixel_is_the_same_pixel(tmp_path: Path, device: str) -> None:
    """Boxes of the size of the clip are not resized, so that clips are just what DALI decodes, cut and turned."""
    index = turned(tmp_path / "v", device)
    augment = AugmentSpec(
        size_px=112, scales=(112 / 144,), max_scale_step=0, snap_px=0, mirror=0.0, resize="graph",
        value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    seen = set()
    with load(index, "dali", device, clip=ClipSpec(num_frames=6), augment=augment, batch_size=8) as loader:
        for epoch in range(4):
            for number, batch in enumerate(loader.epoch(epoch)):
                shown = on_host(batch.clips).transpose(0, 2, 3, 4, 1)
                for clip, plan in zip(shown, loader.sampler.batch(epoch, number, 8), strict=True):
                    record = index[plan.video_id]
                    frames, order = np.unique(plan.frames, return_inverse=True)
                    video = remux(record, frames, root=str(index.root))
                    decoded = decode_by_dali(video.data, video.frames, device)
                    y, x, height, width = plan.box
                    assert (height, width) == (112, 112)
                    upright = record.orientation.turned(decoded)[order, y : y + height, x : x + width]
                    np.testing.assert_allclose(clip, upright, atol=1e-3)
                    seen.add((record.codec, record.orientation.code, (y, x)))
        assert loader.statistics.encoded_clips == 4 * 16
    assert len({(codec, code) for codec, code, _ in seen}) == 16
    assert len({place for *_, place in seen}) > 4  # boxes lie in many places


TAGS = {
    "bt709": {"colorspace": "bt709"},
    "full range": {"color_range": "pc"},
    "bt709 full range": {"colorspace": "bt709", "color_range": "pc"},
}


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("tags", TAGS)
def test_tagged_colours_are_those_of_pyav(tmp_path: Path, device: str, tags: str, train: bool) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    for name, options in {"tagged": TAGS[tags], "plain": {}}.items():
        path = tmp_path / "v" / "a" / f"{name}.webm"
        write_stamped_video(path, codec="vp9", num_frames=20, size=SIZE, options=options)
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    refused = bool(limits_of_device(device).refuses(index[1]))
    assert refused == ("bt709" in tags)
    options = {"train": train, "batch_size": 2}
    with load(index, "dali", device, **options) as ours, load(index, "pyav", "cpu", **options) as plain:
        for epoch in range(4):
            assert_same_clips(list(ours.epoch(epoch)), list(plain.epoch(epoch)), mean=2.6)
        # DALI 1.53 takes full range for limited: then the check finds it out, and PyAV decodes these videos too.
        assert ours.statistics.encoded_clips in ((4,) if refused else (4, 8))

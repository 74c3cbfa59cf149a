from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import turn_mp4, write_stamped_video
from numpy.typing import NDArray

from pipelines.dali.decoder_check import (
    DaliFailed,
    _telling_frames,
    decode_by_dali,
    differing_frames,
    wrong_frames,
)
from pipelines.errors import VideoError
from pipelines.index.video_index import VideoIndex
from pipelines.video.decoder import read_frames
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import MiniVideo, remux


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    wrong_frames.cache_clear()


def stamped(folder: Path, codec: str = "mjpeg", num_frames: int = 30) -> tuple[VideoRecord, str]:
    suffix = {"mjpeg": "avi", "vp8": "webm", "vp9": "mkv", "mpeg4": "avi"}[codec]
    (folder / "v" / "a").mkdir(parents=True)
    write_stamped_video(folder / "v" / "a" / f"v.{suffix}", codec=codec, num_frames=num_frames, size=(128, 112))
    index = VideoIndex.build(folder / "v", index=folder / "index", workers=0, val_fraction=0.0)
    return index[0], str(index.root)


@pytest.mark.parametrize("codec", ["mjpeg", "vp8", "vp9"])
@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_right_frames(tmp_path: Path, codec: str, num_frames: int) -> None:
    record, root = stamped(tmp_path, codec, num_frames)
    assert wrong_frames(record, root, "cpu") == ""


@pytest.mark.parametrize("error", [-1, 1])
def test_a_decoder_that_miscounts_by_one(tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DALI would with hidden frames: here it is asked for the frames beside those that are wanted."""
    record, root = stamped(tmp_path)

    def off_by_one(record: VideoRecord, frames: np.ndarray, *, root: str) -> MiniVideo:
        return remux(record, np.clip(frames + error, 0, record.num_frames - 1), root=root)

    monkeypatch.setattr("pipelines.dali.decoder_check.remux", off_by_one)
    reason = wrong_frames(record, root, "cpu")
    first = 0 if error > 0 else 1
    assert reason == f"a/v.avi: frame {first + error} comes where {first} is wanted"


def test_colours_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, root = stamped(tmp_path)

    def blue_first(data: np.ndarray, numbers: np.ndarray, device: str) -> np.ndarray:
        return decode_by_dali(data, numbers, device)[..., ::-1]

    monkeypatch.setattr("pipelines.dali.decoder_check.decode_by_dali", blue_first)
    assert "a/v.avi: frame 0 differs by " in wrong_frames(record, root, "cpu")


@pytest.mark.parametrize("mistake", ["matrix", "range"])
@pytest.mark.parametrize("codec", ["mjpeg", "vp8", "vp9"])
def test_colours_of_another_matrix_or_range_are_seen(
    tmp_path: Path, codec: str, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the mean difference is small, as that of a matrix is: below 5 of 255."""
    record, root = stamped(tmp_path, codec)

    def mistaken(data: NDArray[np.uint8], numbers: NDArray[np.int32], device: str) -> NDArray[np.uint8]:
        found = decode_by_dali(data, numbers, device).astype(np.float64)
        if mistake == "range":
            changed = (found - 16) * 255 / 219 if codec != "mjpeg" else found * 219 / 255 + 16
        else:
            luma = found @ [0.299, 0.587, 0.114]
            red, blue = (found[..., 0] - luma) / 1.402, (found[..., 2] - luma) / 1.772
            green = luma - 0.1873 * blue - 0.4681 * red
            changed = np.stack([luma + 1.5748 * red, green, luma + 1.8556 * blue], axis=-1)
        return changed.round().clip(0, 255).astype(np.uint8)

    monkeypatch.setattr("pipelines.dali.decoder_check.decode_by_dali", mistaken)
    seen = r"its colours differ by up to \d+\.\d of 255"
    if mistake == "range":
        seen += r"|frame 0 differs by \d\d\.\d of 255"
    assert re.fullmatch(rf"a/v\.\w+: ({seen})", wrong_frames(record, root, "cpu"))


def test_a_turned_video_is_compared_upright(tmp_path: Path) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    path = write_stamped_video(tmp_path / "v" / "a" / "v.mov", codec="mjpeg", num_frames=9, size=(160, 112))
    turn_mp4(path, (0, 1, -1, 0))
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    assert (index[0].height, index[0].width) == (160, 112)
    assert wrong_frames(index[0], str(index.root), "cpu") == ""


def test_a_codec_that_dali_does_not_decode(tmp_path: Path) -> None:
    record, root = stamped(tmp_path, "mpeg4")
    assert "Failed to create video decoder" in wrong_frames(record, root, "cpu")
    with pytest.raises(DaliFailed, match="Failed to create video decoder"):
        differing_frames(record, root, "cpu")


def test_a_video_that_can_not_be_read_says_nothing_of_dali(tmp_path: Path) -> None:
    record, root = stamped(tmp_path)
    (tmp_path / "v" / "a" / "v.avi").unlink()
    with pytest.raises(VideoError, match="can't be read"):
        wrong_frames(record, root, "cpu")


@pytest.mark.real
def test_a_real_mjpeg_video(real_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    (tmp_path / "v" / "a" / "v.avi").symlink_to(real_clips / "odd" / "mjpeg_320x600.avi")
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0, follow_links=True)
    assert wrong_frames(index[0], str(index.root), "cpu") == ""


@pytest.mark.real
def test_over_real_clips_each_miscount_is_seen_and_nothing_else(
    real_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder with colours of its own, and noise, that counts right or is off by one, over the 96 clips."""
    index = VideoIndex.build(real_clips / "UCF-101", index=tmp_path / "index", workers=0, val_fraction=0.0)
    state: dict[str, Any] = {}

    def decoder(data: NDArray[np.uint8], numbers: NDArray[np.int32], device: str) -> NDArray[np.uint8]:
        video = state["video"]
        frames = np.clip(np.array(_telling_frames(video.num_frames)) + state["error"], 0, video.num_frames - 1)
        shown = read_frames(video, frames, root=str(index.root)) * 0.97 + 4.0
        return (shown + np.random.default_rng(0).normal(0.0, 1.5, shown.shape)).clip(0, 255).astype(np.uint8)

    monkeypatch.setattr("pipelines.dali.decoder_check.decode_by_dali", decoder)
    for error in (-1, 0, 1):
        state["error"] = error
        wrong_frames.cache_clear()
        for number in range(0, len(index), 3):
            state["video"] = index[number]
            assert bool(wrong_frames(index[number], str(index.root), "cpu")) == (error != 0), index[number].path

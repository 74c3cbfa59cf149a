"""A reader that gives other frames than were asked for is found out."""

from __future__ import annotations

from pathlib import Path

import av
import clips
import numpy as np
import pytest
from peer_readers import BY_NAME, CLIP, needs, off_by_one, tinted

from bench.loader import frame_check
from bench.loader.frame_check import FrameCheck
from bench.loader.peers import Peer
from pipelines.index.video_index import VideoIndex
from pipelines.specs import ClipSpec
from pipelines.video.decoder import read_frames


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if not BY_NAME[name].extracts])
def test_the_check_passes_readers_that_are_right(index: VideoIndex, name: str, sampling: str) -> None:
    """Those of JPEGs aside: stamps are no photographs, JPEG changes them by more than the bound."""
    peer = needs(name, decoder_only=True)
    check = frame_check.check_frames(peer, index, "train", CLIP.model_copy(update={"sampling": sampling}))
    assert (check.identical + check.same, check.wrong, check.failed) == (len(index), (), ())
    assert check.difference < 0.1
    if name == "PyAV naive":
        assert check.text == "identical"


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
def test_the_check_finds_one_video_that_is_off_by_one(index: VideoIndex, sampling: str) -> None:
    check = frame_check.check_frames(Peer("late", (), "", off_by_one), index, "train", ClipSpec(sampling=sampling))
    assert check == FrameCheck(6, 5, 0, 0.0, ("b/3.avi",), ())
    assert check.text == "1 of 6 videos give other frames, else identical"


def test_the_check_tells_a_conversion_and_an_error_from_other_frames(index: VideoIndex) -> None:
    check = frame_check.check_frames(Peer("tint", (), "", tinted), index, "train", CLIP)
    assert (check.videos, check.identical, check.same, check.wrong) == (6, 0, 5, ())
    assert check.failed == ("a/2.avi: can't",)
    assert 0.3 < check.difference < 2.0
    expected = f"1 of 6 videos raise, else same frames (mean difference up to {check.difference:.1f} of 255)"
    assert check.text == expected


def test_an_off_by_one_is_found_in_a_video_that_hardly_moves(tmp_path: Path) -> None:
    """Neighbours differ by less than converters do: only their order tells."""
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    with av.open(str(folder / "3.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
        for number in range(40):
            pixels = clips.stamped_frame(0)
            pixels[80:88, 2 * number : 2 * number + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    still = VideoIndex.build(tmp_path / "data", val_fraction=0, workers=0)
    frames = read_frames(still[0], range(40), root=still.root).astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).max() < 3.0 < frame_check.SAME_FRAME
    check = frame_check.check_frames(Peer("late", (), "", off_by_one), still, "train", CLIP)
    assert check.wrong == ("a/3.avi",)


@pytest.mark.real
def test_readers_of_real_clips(real_clips: Path, tmp_path: Path) -> None:
    """JPEGs are the same frames; decoding from the start is our decoding."""
    lists = real_clips / "ucfTrainTestlist"
    real = VideoIndex.build(real_clips / "UCF-101", lists=lists, split=1, index=tmp_path / "ucf.r3dindex", workers=0)
    assert frame_check.check_frames(BY_NAME["PyAV naive"], real, "test", ClipSpec()).text == "identical"
    check = frame_check.check_frames(
        needs("jpg frames", decoder_only=True), real, "test", ClipSpec(sampling="consecutive")
    )
    assert (check.same, check.wrong, check.failed) == (32, (), ())

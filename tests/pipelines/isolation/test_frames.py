from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from clips import write_stamped_video
from faulty_reads import FaultyReads

from pipelines.errors import VideoError
from pipelines.isolation.frames import DistantFrames, Wanted
from pipelines.video.sequence import FrameSequence


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_stamped_video(tmp_path / "v.mkv", num_frames=23, codec="h264")


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyReads:
    return FaultyReads(tmp_path, monkeypatch)


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(5, 2), Wanted(3, 1, end=8)])
def test_the_frames_are_those_of_a_sequence(video: Path, wanted: Wanted) -> None:
    with FrameSequence(video) as whole:
        chosen = [
            (shown.number, shown.seconds, whole.pixels(shown.frame).copy())
            for shown in whole
            if shown.number % wanted.stride == wanted.offset and (wanted.end is None or shown.number < wanted.end)
        ]
    with DistantFrames(str(video)) as distant:
        found = list(distant.frames(wanted))
        assert distant.fps == whole.fps
        if wanted.end is None:
            assert (distant.num_frames, distant.end_seconds) == (whole.num_frames, whole.clock.end)
    assert [frame[:2] for frame in found] == [frame[:2] for frame in chosen]
    assert all(np.array_equal(mine.pixels, pixels) for mine, (*_, pixels) in zip(found, chosen, strict=True))


def test_the_end_of_a_cut_file_is_told_after_its_frames(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:-3000])
    with FrameSequence(video) as whole, pytest.raises(VideoError) as expected:
        list(whole)
    found: list[int] = []
    with DistantFrames(str(video)) as distant, pytest.raises(VideoError) as caught:
        found.extend(frame.number for frame in distant.frames(Wanted()))
    assert str(caught.value) == str(expected.value)
    assert found == list(range(whole.num_frames))
    assert distant.num_frames == whole.num_frames > 0


def test_no_video_is_told_as_by_a_sequence(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"no video")
    for name in ("a.avi", "none.avi"):
        with pytest.raises(VideoError) as expected:
            FrameSequence(tmp_path / name)
        with pytest.raises(VideoError) as caught:
            DistantFrames(str(tmp_path / name))
        assert str(caught.value) == str(expected.value)


def test_a_file_that_kills_its_process_is_an_error(video: Path, faults: FaultyReads) -> None:
    faults.begin(video.name, "segv")
    with pytest.raises(VideoError) as caught:
        DistantFrames(str(video))
    assert str(caught.value) == f"{video}: crashes the decoder: the process that read it was ended by SIGSEGV"
    assert caught.value.is_passing


def test_a_file_that_blocks_its_process_is_an_error(video: Path, faults: FaultyReads) -> None:
    faults.begin(video.name, "block")
    with pytest.raises(VideoError) as caught:
        DistantFrames(str(video), stall_seconds=1.0, start_seconds=20.0)
    detail = "nothing was read or decoded for 1 s, and its process was ended"
    assert str(caught.value) == f"{video}: hangs the decoder: {detail}"
    assert caught.value.is_passing


def test_an_error_of_the_disk_is_an_error(video: Path, faults: FaultyReads) -> None:
    faults.begin(video.name, errno.EIO)
    with pytest.raises(VideoError, match="Input/output error"):
        DistantFrames(str(video))

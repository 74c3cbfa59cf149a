from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import write_stamped_video
from faulty_reads import FaultyReads

from pipelines.errors import VideoError
from pipelines.isolation.chosen_frames import Chosen, Pixels, read_apart
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord

NAMES = ("a.mkv", "bad.mkv", "c.mkv")


@pytest.fixture
def records(tmp_path: Path) -> list[VideoRecord]:
    for name in NAMES:
        write_stamped_video(tmp_path / name, num_frames=23, codec="h264")
    return [probe_video(name, root=tmp_path) for name in NAMES]


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyReads:
    return FaultyReads(tmp_path, monkeypatch)


def middle(pixels: Pixels) -> Pixels:
    """The pixel in the middle."""
    return pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :][:1, :1]


def test_the_frames_are_those_of_read_frames(records: list[VideoRecord], tmp_path: Path) -> None:
    wanted = [(0, 22, 7), (11,), (3, 3)]
    found = list(read_apart([Chosen(*pair) for pair in zip(records, wanted, strict=True)], tmp_path))
    for record, numbers, frames in zip(records, wanted, found, strict=True):
        assert not isinstance(frames, VideoError)
        np.testing.assert_array_equal(np.stack(frames), read_frames(record, numbers, root=tmp_path))
    (changed,) = read_apart([Chosen(records[0], (5,), middle)], tmp_path)
    assert not isinstance(changed, VideoError)
    np.testing.assert_array_equal(changed[0], middle(read_frames(records[0], [5], root=tmp_path)[0]))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("segv", "crashes the decoder: the process that read it was ended by SIGSEGV, twice"),
        ("block", "hangs the decoder: nothing was read or decoded for 1 s, and its process was ended"),
    ],
)
def test_a_video_that_ends_or_blocks_its_process_costs_its_own_frames_only(
    records: list[VideoRecord], tmp_path: Path, faults: FaultyReads, fault: str, text: str
) -> None:
    faults.begin("bad.mkv", fault)
    found = list(read_apart([Chosen(record, (4,)) for record in records], tmp_path, stall_seconds=1.0))
    assert [isinstance(one, VideoError) for one in found] == [False, True, False]
    assert str(found[1]) == f"{tmp_path / 'bad.mkv'}: {text}"


def test_what_read_frames_raises_is_the_error_of_the_video(records: list[VideoRecord], tmp_path: Path) -> None:
    (tmp_path / "bad.mkv").write_bytes(b"no video any more")
    with pytest.raises(VideoError) as expected:
        read_frames(records[1], [4], root=tmp_path)
    found = list(read_apart([Chosen(record, (4,)) for record in records], tmp_path))
    assert [isinstance(one, VideoError) for one in found] == [False, True, False]
    assert str(found[1]) == str(expected.value)

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from clips import write_stamped_video
from faulty_reads import FaultyReads

from pipelines.errors import VideoError
from pipelines.index.probe_pool import probe_all
from pipelines.video.record import VideoRecord

NAMES = ["0.avi", "1.avi", "2.mkv", "3.mp4"]
CODECS = {".avi": "mpeg4", ".mkv": "h264", ".mp4": "h264"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos, two of which are read by FFmpeg to be counted."""
    (tmp_path / "videos").mkdir()
    for number, name in enumerate(NAMES):
        write_stamped_video(tmp_path / "videos" / name, num_frames=5 + number, codec=CODECS[name[1:]])
    return tmp_path / "videos"


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyReads:
    return FaultyReads(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
def test_a_file_that_is_unreadable_for_a_moment_is_probed_again(
    folder: Path, faults: FaultyReads, name: str, error: int
) -> None:
    faults.begin(name, error, times=1)
    results = list(probe_all(NAMES, folder, workers=1))
    assert [r.num_frames for r in results if isinstance(r, VideoRecord)] == [5, 6, 7, 8]
    assert faults.count == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_stays_unreadable_is_an_error_that_may_pass(folder: Path, faults: FaultyReads, name: str) -> None:
    faults.begin(name, errno.EIO)
    results = list(probe_all(NAMES, folder, workers=1))
    (error,) = [result for result in results if isinstance(result, VideoError)]
    assert str(error) == f"{folder / name}: can't be read: Input/output error"
    assert error.is_passing
    assert results.index(error) == NAMES.index(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_which_the_decoder_dies_is_an_error_that_may_pass(
    folder: Path, faults: FaultyReads, name: str
) -> None:
    faults.begin(name, "segv")
    (error,) = [result for result in probe_all(NAMES, folder, workers=1) if isinstance(result, VideoError)]
    assert str(error) == f"{folder / name}: crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert error.is_passing


def test_a_file_on_a_disk_that_does_not_answer_is_an_error_that_may_pass(folder: Path, faults: FaultyReads) -> None:
    faults.begin("1.avi", "block")
    results = list(probe_all(NAMES, folder, workers=1, stall_seconds=1.0))
    (error,) = [result for result in results if isinstance(result, VideoError)]
    detail = "nothing was read or decoded for 1 s, and its process was ended"
    assert str(error) == f"{folder / '1.avi'}: hangs the decoder: {detail}"
    assert error.is_passing


def test_what_the_bytes_prove_may_not_pass(folder: Path) -> None:
    data = (folder / "2.mkv").read_bytes()
    (folder / "2.mkv").write_bytes(data[: len(data) // 2])
    (folder / "1.avi").write_bytes(b"no video")
    results = list(probe_all(NAMES, folder, workers=1))
    assert [result.is_passing for result in results if isinstance(result, VideoError)] == [False, False]

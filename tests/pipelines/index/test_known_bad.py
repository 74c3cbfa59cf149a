from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import clips
import pytest

from pipelines.errors import UsageError
from pipelines.index.known_bad import BadVideo, KnownBad, reasons_of
from pipelines.index.video_index import VideoIndex


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    """Three videos of two classes."""
    for i in range(3):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(path, num_frames=4)
    return VideoIndex.build(tmp_path / "data")


def entry_of(index: VideoIndex, path: str, reason: str = "crashes the decoder", detail: str = "") -> BadVideo:
    return BadVideo.of_file(index.root, path, None, reason, detail)


def test_without_a_file_nothing_is_bad(index: VideoIndex) -> None:
    assert KnownBad(index.path).entries() == []
    assert index.known_bad == {}
    assert KnownBad(index.path).clear() == 0


def test_an_index_knows_its_bad_videos(index: VideoIndex) -> None:
    known = KnownBad(index.path)
    assert known.path == index.path.with_name("data.r3dindex.quarantine")
    known.add(entry_of(index, "b/1.avi", detail="3 times"))
    assert known.path.stat().st_mode & 0o777 == 0o644
    again = VideoIndex.open(index.path)
    assert [again[i].path for i in again.known_bad] == ["b/1.avi"]
    assert list(again.known_bad.values()) == ["crashes the decoder: 3 times"]


def test_an_entry_ends_when_the_file_has_another_time_or_size(index: VideoIndex) -> None:
    known = KnownBad(index.path)
    known.add(entry_of(index, "a/0.avi"), entry_of(index, "a/2.avi"), entry_of(index, "b/1.avi"))
    status = (index.root / "a/0.avi").stat()
    os.utime(index.root / "a/0.avi", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    other = index.root / "a/2.avi"
    status = other.stat()
    other.write_bytes(other.read_bytes() + b"\0")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [entry.path for entry in known.holding(index.root)] == ["b/1.avi"]
    assert len(known.entries()) == 3
    (index.root / "b/1.avi").unlink()
    assert known.holding(index.root) == []


def test_a_video_has_one_entry_the_latest(index: VideoIndex) -> None:
    known = KnownBad(index.path)
    known.add(entry_of(index, "a/0.avi", "hangs"))
    known.add(entry_of(index, "b/1.avi"))
    known.add(entry_of(index, "a/0.avi", "damaged"))
    assert [(entry.path, entry.reason) for entry in known.entries()] == [
        ("b/1.avi", "crashes the decoder"),
        ("a/0.avi", "damaged"),
    ]


def test_an_entry_for_a_file_counts_for_its_parts_and_one_for_a_part_for_that_alone() -> None:
    videos = [("a", None), ("b", (0.0, 1.0)), ("b", (1.0, 2.0)), ("c", (0.0, 1.0)), ("c", (1.0, 2.0))]
    known = [BadVideo("b", None, 1, 1, "hangs"), BadVideo("c", (1.0, 2.0), 1, 1, "damaged", "3 of 9")]
    assert reasons_of(videos, known) == {1: "hangs", 2: "hangs", 4: "damaged: 3 of 9"}


def test_a_part_and_a_name_that_is_no_text_come_back_as_they_were(index: VideoIndex) -> None:
    entry = BadVideo(os.fsdecode(b"a/\xff\n.avi"), (1.0, 2.5), 7, 1 << 62, "hangs", "x" * 1000)
    known = KnownBad(index.path)
    known.add(entry)
    assert known.entries() == [entry._replace(detail="x" * 300)]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"1",
        b"[" * 100_000,
        b"{}",
        json.dumps({**BadVideo("a", None, 1, 1, "r")._asdict(), "size": "1"}).encode(),
        json.dumps({**BadVideo("a", None, 1, 1, "r")._asdict(), "span": [1]}).encode(),
        json.dumps({**BadVideo("a", None, 1, 1, "r")._asdict(), "path": None}).encode(),
    ],
)
def test_a_damaged_line_is_skipped_and_said_once(
    index: VideoIndex, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    known = KnownBad(index.path)
    known.add(entry_of(index, "a/0.avi"), entry_of(index, "b/1.avi"))
    first, second = known.path.read_bytes().splitlines()
    known.path.write_bytes(b"\n".join([first, line, line, second]))
    with caplog.at_level(logging.WARNING):
        assert [entry.path for entry in known.entries()] == ["a/0.avi", "b/1.avi"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{known.path}: 2 lines can't be read; the other entries hold; the next change of the file leaves them out, "
        "and `r3d-fast data check --full --quarantine` finds again what they named"
    ]


def test_one_damaged_line_is_one_line(index: VideoIndex, caplog: pytest.LogCaptureFixture) -> None:
    known = KnownBad(index.path)
    known.path.write_bytes(b"{")
    assert known.entries() == []
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{known.path}: 1 line can't be read; the other entries hold")


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(index: VideoIndex, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    known = KnownBad(index.path)
    if kind == "pipe":
        os.mkfifo(known.path)
    else:
        known.path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert index.known_bad == {}
    what = "FIFO" if kind == "pipe" else kind
    assert f"it is a {what}; expected a file; no entry of it holds: remove it" in caplog.text
    with pytest.raises(UsageError, match="can't be written"):
        known.add(entry_of(index, "a/0.avi"))


def test_only_what_is_wanted_is_kept(index: VideoIndex) -> None:
    known = KnownBad(index.path)
    known.keep([])  # there is no file yet
    assert not known.path.exists()
    known.add(entry_of(index, "a/0.avi"), entry_of(index, "b/1.avi"))
    known.keep(known.entries()[1:])
    assert [entry.path for entry in known.entries()] == ["b/1.avi"]
    assert known.clear() == 1
    assert not known.path.exists()


def test_processes_that_enter_videos_at_once_lose_none(index: VideoIndex) -> None:
    program = (
        "import sys; from pipelines.index.known_bad import BadVideo, KnownBad\n"
        "known = KnownBad(sys.argv[1])\n"
        "for i in range(20): known.add(BadVideo(f'{sys.argv[2]}/{i}', None, 1, 1, 'hangs'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(index.path), str(k)]) for k in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(KnownBad(index.path).entries()) == 60

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from faulty_reads import FaultyReads
from loading import content, make, pixels

from pipelines.index.known_bad import BadVideo, KnownBad
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader

BAD = 7  # the number of the video that can't be read


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyReads:
    return FaultyReads(tmp_path, monkeypatch)


def others(batches: list[Batch]) -> list[tuple[bytes, list[int], list[int]]]:
    """The clips of `batches`, their labels and videos, but for those of BAD."""
    kept = [batch.video_ids != BAD for batch in batches]
    return [
        (pixels(b)[rows].tobytes(), b.labels[rows].tolist(), b.video_ids[rows].tolist())
        for b, rows in zip(batches, kept, strict=True)
    ]


def loaded(loader: ClipLoader) -> list[Batch]:
    with loader:
        return list(loader)


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
def test_a_file_that_can_be_read_again_is_no_bad_clip(copied: VideoIndex, faults: FaultyReads, error: int) -> None:
    undisturbed = content(loaded(make(copied)))
    faults.begin(copied[BAD].path, error, times=2)
    loader = make(copied, workers=1)
    batches = loaded(loader)
    assert content(batches) == undisturbed
    assert [bad for batch in batches for bad in batch.bad] == []
    assert loader.statistics.io_retries == faults.count == 2


@pytest.mark.parametrize(("error", "said"), [(errno.EIO, "Input/output error"), (errno.ESTALE, "Stale file handle")])
def test_a_file_that_cannot_be_read_is_a_bad_clip_this_time_only(
    copied: VideoIndex, faults: FaultyReads, error: int, said: str
) -> None:
    undisturbed = content(loaded(make(copied)))
    faults.begin(copied[BAD].path, error)
    loader = make(copied, workers=1, io_retries=1)
    (bad,) = [bad for batch in loaded(loader) for bad in batch.bad]
    assert (bad.video_id, bad.reason) == (BAD, f"{copied.root / copied[BAD].path}: can't be read: {said}")
    assert loader.statistics.io_retries == 1
    faults.end()
    assert KnownBad(copied.path).entries() == []
    assert content(loaded(make(copied, workers=1))) == undisturbed


def test_a_video_that_kills_three_workers_is_not_read_any_more(
    copied: VideoIndex, faults: FaultyReads, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = loaded(make(copied))
    path = copied.root / copied[BAD].path
    faults.begin(copied[BAD].path, "segv")
    with caplog.at_level(logging.WARNING, "pipelines.workers"), make(copied, workers=2) as loader:
        batches, again = list(loader), list(loader)
    detail = "crashes the decoder: the process that read it was ended by SIGSEGV, three times"
    assert [bad.reason for batch in batches for bad in batch.bad] == [f"{path}: {detail}"]
    assert [bad.reason for batch in again for bad in batch.bad] == [f"{path}: quarantined: {detail}"]
    told = [record.getMessage() for record in caplog.records]
    died = f"a decoding process was ended by SIGSEGV with {path}: another one makes its clips again"
    left_out = (
        f"{path}: is not read any more, also in later runs; to try it again: "
        f"r3d-fast data check {copied.path} --clear-quarantine"
    )
    assert sorted(told) == sorted([died, died, died, left_out])
    assert faults.count == 3
    assert others(batches) == others(undisturbed)
    later = loaded(make(VideoIndex.open(copied.path, copied.root), workers=1))
    assert [bad.reason for batch in later for bad in batch.bad] == [f"{path}: quarantined: {detail}"]
    assert faults.count == 3
    path.touch()  # another file now, as far as one can see
    faults.end()
    assert [
        bad for batch in loaded(make(VideoIndex.open(copied.path, copied.root), workers=1)) for bad in batch.bad
    ] == []


def test_a_known_bad_video_is_not_even_opened(copied: VideoIndex) -> None:
    KnownBad(copied.path).add(BadVideo.of_file(copied.root, copied[BAD].path, None, "corrupt", "3 of 20 frames"))
    index = VideoIndex.open(copied.path, copied.root)
    undisturbed = loaded(make(copied))
    for workers in (0, 1):
        batches = loaded(make(index, workers=workers))
        (bad,) = [bad for batch in batches for bad in batch.bad]
        assert bad.reason == f"{copied.root / copied[BAD].path}: quarantined: corrupt: 3 of 20 frames"
        assert others(batches) == others(undisturbed)


def test_a_file_on_a_disk_that_does_not_answer_is_a_bad_clip_this_time_only(
    copied: VideoIndex, faults: FaultyReads, caplog: pytest.LogCaptureFixture
) -> None:
    faults.begin(copied[BAD].path, "block")
    with caplog.at_level(logging.WARNING, "pipelines.workers"):
        batches = loaded(make(copied, workers=1, timeout_seconds=1.0))
    (bad,) = [bad for batch in batches for bad in batch.bad]
    what = "gave no clip for 1 s and was ended while it waited for data"
    path = copied.root / copied[BAD].path
    assert bad.reason == f"{path}: hangs the decoder: the process that read it {what}, three times"
    assert [record.getMessage() for record in caplog.records] == [
        f"a decoding process {what} with {path}: another one makes its clips again"
    ] * 3
    assert KnownBad(copied.path).entries() == []


def test_the_first_worker_that_is_killed_while_it_starts_does_not_end_the_loader(
    copied: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = content(loaded(make(copied)))
    killer = tmp_path / "site"
    killer.mkdir()
    marks = tmp_path / "marks"
    marks.mkdir()
    (killer / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        f"marks = Path({str(marks)!r})\n"
        "if len(list(marks.iterdir())) < 3:\n"
        "    (marks / str(os.getpid())).touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(killer))
    assert content(loaded(make(copied, workers=1))) == undisturbed
    assert len(list(marks.iterdir())) == 3

"""Videos whose bytes change while their sizes and times stay the same."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
import tiny
from runs import records

from pipelines.errors import INDEX_FULLY, DataError
from pipelines.index.known_bad import KnownBad
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast.training.train import train


@pytest.fixture
def data(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """An index of files that may be damaged."""
    shutil.copytree(index.root, tmp_path / "data")
    return VideoIndex.build(tmp_path / "data", workers=0)


def rot(path: Path) -> bytes:
    """Overwrite most of a file with zeros, its size and time left as they are; gives what it was."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(before[: len(before) // 4] + bytes(len(before) - len(before) // 4))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return before


def put_back(path: Path, content: bytes) -> None:
    """Write what a file was, with the time that it had, as `cp -p` does."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def followed(said: str) -> list[str]:
    """The arguments of the last `r3d-fast` command in a message."""
    return shlex.split(said.rpartition("r3d-fast ")[2])


def stopped_by_rot(data: VideoIndex, run: Path) -> tuple[str, Path, bytes]:
    """(what a training says whose second epoch meets a file that rots in its first one, the file, what it was)."""
    bad = sorted((data.root / "train").rglob("*.avi"))[3]
    content: list[bytes] = []

    def on_batch(batch: Batch) -> None:
        if not content:
            content.append(rot(bad))

    with pytest.raises(DataError, match="1 of 24 training videos can't be read") as caught:
        train(tiny.tiny_config(data, "loader.prefetch=1", "train.epochs=4"), run=run, on_batch=on_batch)
    return str(caught.value), bad, content[0]


def test_a_run_that_rot_stops_goes_on_by_the_command_that_it_names(data: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said, bad, _ = stopped_by_rot(data, run)
    assert str(bad) in said
    assert "index the data set again" not in said.partition("; put them back")[2]
    done = tiny.call(*followed(said))
    assert done.returncode == 0, done.stderr
    steps = [record["step"] for record in records(run, "train")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 16


def test_after_another_index_the_run_goes_on_once_the_file_is_back(data: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _, bad, content = stopped_by_rot(data, run)
    assert tiny.call("data", "index", data.root, "--full").returncode == 0
    refused = tiny.call("train", "--resume", run)
    assert (refused.returncode, "start a new run from its weights" in refused.stderr) == (2, True)
    put_back(bad, content)
    for command in (followed(refused.stderr), ["train", "--resume", str(run)]):
        done = tiny.call(*command)
        assert done.returncode == 0, done.stderr
    assert records(run, "train")[-1]["step"] == 16


def test_a_run_that_has_not_begun_names_the_command_that_mends_the_index(data: VideoIndex, tmp_path: Path) -> None:
    bad = {*(data.root / "train").rglob("*.avi")}
    for path in bad:
        rot(path)
    with pytest.raises(DataError) as caught:
        train(tiny.tiny_config(data), run=tmp_path / "run")
    done = tiny.call(*followed(str(caught.value)))
    assert done.returncode == 0, done.stderr
    assert not {*VideoIndex.open(data.path).names()} & {str(path.relative_to(data.root)) for path in bad}


def test_rot_that_a_check_enters_is_decoded_by_the_next_index(data: VideoIndex) -> None:
    bad, mended = (data.root / data[number].path for number in (0, 20))
    rot(bad)
    content = rot(mended)
    code = tiny.call("data", "check", data.path, "--quarantine")
    assert (code.returncode, "2 in quarantine now" in code.stdout, INDEX_FULLY in code.stdout) == (3, True, True)
    put_back(mended, content)
    assert tiny.call("data", "index", data.root).returncode == 0
    again = VideoIndex.open(data.path)
    assert [item.path for item in again.quarantined] == [data[0].path]
    assert (KnownBad(data.path).entries(), len(again)) == ([], len(data) - 1)

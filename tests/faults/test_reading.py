"""Reading that fails, crashes or never ends, as on a broken disk or a stalled network share."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import clips
import pytest
import tiny
from faulty_reads import FaultyReads
from runs import last_checkpoint, records

from pipelines.index.video_index import VideoIndex


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyReads:
    """What makes reading fail in the commands that are started."""
    return FaultyReads(tmp_path, monkeypatch)


@pytest.fixture
def own(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """The tiny data set, in which what is known of bad videos may be noted."""
    shutil.copytree(index.root, tmp_path / "data")
    return VideoIndex.build(tmp_path / "data", index=tmp_path / "index", workers=0)


def train(index: VideoIndex, run: Path, *more: str) -> tuple[int, list[str]]:
    """(exit code, lines on stderr) of an epoch of four steps in the new folder `run`."""
    short = ("train.epochs=1", "schedule.warmup_epochs=0", "train.log_every_steps=1")
    done = tiny.call("train", "-c", "demo", "--run", run, *tiny.options(tiny.overrides(index, *short, *more)))
    return done.returncode, done.stderr.splitlines()


def training_video(index: VideoIndex, number: int) -> str:
    return index[int(index.columns("train").video_id[number])].path


@pytest.mark.parametrize(
    ("fault", "said"), [("segv", "was ended by SIGSEGV with"), ("block", "gave no clip for 2 s and was ended")]
)
def test_a_video_that_crashes_or_blocks_its_reader_is_named_and_left_out(
    own: VideoIndex, tmp_path: Path, faulty: FaultyReads, fault: str, said: str
) -> None:
    bad, more = training_video(own, 3), ("data.max_bad_fraction=0.1", "loader.timeout_seconds=2")
    faulty.begin(bad, fault)
    code, lines = train(own, tmp_path / "run", *more)
    assert code == 0, lines
    assert any(said in line and bad in line for line in lines), lines
    assert sum(record["count"] for record in records(tmp_path / "run", "train")) == 23
    faulty.end()
    code, lines = train(own, tmp_path / "again", *more)  # where nothing fails any more
    assert code == 0, lines
    # What crashed is known to do so; a disk that did not answer may answer now.
    counts = sum(record["count"] for record in records(tmp_path / "again", "train"))
    assert (counts, any("quarantined" in line for line in lines)) == ((23, True) if fault == "segv" else (24, False))


def test_a_reading_error_that_passes_costs_no_clip(own: VideoIndex, tmp_path: Path, faulty: FaultyReads) -> None:
    code, lines = train(own, tmp_path / "plain")
    assert code == 0, lines
    faulty.begin(training_video(own, 3), errno.EIO, times=1)
    code, lines = train(own, tmp_path / "run")
    assert code == 0, lines
    assert faulty.count == 1
    found, plain = (records(tmp_path / name, "train") for name in ("run", "plain"))
    assert [record["loss"] for record in found] == [record["loss"] for record in plain]
    assert sum(record["count"] for record in found) == 24
    assert max(record["io_retries"] for record in found) == 1


def test_a_reading_error_that_stays_ends_the_run_with_a_checkpoint_and_is_not_remembered(
    own: VideoIndex, tmp_path: Path, faulty: FaultyReads
) -> None:
    bad, run = training_video(own, 5), tmp_path / "run"
    faulty.begin(bad, errno.ESTALE)
    code, lines = train(own, run, "loader.io_retries=1")
    assert code == 3, lines
    assert f"{tmp_path / 'data' / bad}: can't be read: Stale file handle" in lines[-1]
    assert f"continue with: r3d-fast train --resume {run}" in lines[-1]
    assert last_checkpoint(run).state["step"] == len(records(run, "train"))
    faulty.end()
    done = tiny.call("train", "--resume", run)  # where the share is back
    assert done.returncode == 0, done.stderr
    assert last_checkpoint(run).state["step"] == 4


def test_an_index_names_the_file_that_crashes_and_takes_the_others(tmp_path: Path, faulty: FaultyReads) -> None:
    for number in range(4):
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(tmp_path / "data" / "ab"[number % 2] / f"{number}.avi", num_frames=4 + number)
    faulty.begin("/a/2.avi", "segv")
    done = tiny.call("data", "index", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "videos   3 (" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "a/2.avi" in line]
    assert line.startswith("  crashes the decoder: a/2.avi")
    faulty.end()
    again = tiny.call("data", "index", tmp_path / "data")  # nothing in the file proved it
    assert again.returncode == 0, again.stderr
    assert "videos   4 (" in again.stdout


@pytest.mark.parametrize("fault", ["segv", errno.EIO])
def test_predictions_are_there_for_all_but_the_file_that_can_not_be_read(
    model: Path, tmp_path: Path, faulty: FaultyReads, fault: str | int
) -> None:
    videos = [clips.write_stamped_video(tmp_path / f"{number}.avi", num_frames=12) for number in range(3)]
    faulty.begin("/1.avi", fault)
    done = tiny.call("predict", model, *videos, "--json", tmp_path / "p.json", "--device", "cpu")
    assert done.returncode == 3, done.stderr
    assert f"{videos[1]}: error: " in done.stderr
    assert "1 of 3 videos could not be read" in done.stderr
    items = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert [item["error"] is None for item in items] == [True, False, True]

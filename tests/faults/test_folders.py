"""A folder of videos as people have them: files that are no videos, and files that nobody may read."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import clips
import pytest
import tiny
from rights import without_rights
from runs import records

from pipelines.index.video_index import VideoIndex


def of_the_beginning(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(clips.write_stamped_video(path, num_frames=40).read_bytes()[:size])


def half(path: Path) -> None:
    content = clips.write_stamped_video(path, num_frames=40).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def huge_picture(path: Path) -> None:
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8000, 4500, "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(8000, 4500, "yuv420p")), *stream.encode(None)]:
            target.mux(packet)


# What the file is called, what makes it, and why it is left out.
BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "B01": ("empty.avi", Path.touch, "empty"),
    "B02": ("half.avi", half, "truncated"),
    "B03": ("head.avi", of_the_beginning(100), "truncated"),
    "B04": ("noise.avi", lambda path: path.write_bytes(random.Random(0).randbytes(5000)), "not a readable video"),
    "B05": ("text.avi", lambda path: path.write_text("hello world\n" * 50), "not a readable video"),
    "B08": ("sound.avi", clips.write_audio_only, "no video stream"),
    "B13": ("huge.avi", huge_picture, "too large"),
    "B23": ("pipe.avi", os.mkfifo, "not a regular file (FIFO)"),
}


@pytest.fixture(scope="module")
def dirty(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set with each of BAD_FILES among its training videos, and a folder that is called like a video."""
    root = tmp_path_factory.mktemp("dirty") / "data"
    shutil.copytree(index.root, root)
    for name, make, _ in BAD_FILES.values():
        make(root / "train" / "left" / name)
    (root / "train" / "left" / "folder.avi").mkdir()
    return root


@pytest.fixture(scope="module")
def indexed(dirty: Path) -> subprocess.CompletedProcess[str]:
    """How `data index` of the dirty folder ended."""
    return tiny.call("data", "index", dirty, "--index", dirty.parent / "i", timeout=60)


@pytest.mark.parametrize("row", BAD_FILES)
def test_a_file_that_is_no_video_is_left_out_with_its_reason(
    indexed: subprocess.CompletedProcess[str], row: str
) -> None:
    name, _, reason = BAD_FILES[row]
    assert indexed.returncode == 0, indexed.stderr
    assert "videos   40 (24 train, 16 test)" in indexed.stdout  # all the others
    assert f"left out {len(BAD_FILES)}\n" in indexed.stdout
    (line,) = [line for line in indexed.stdout.splitlines() if f"/{name}" in line]
    assert line.startswith(f"  {reason}: train/left/{name}")


def test_training_and_evaluation_go_on_without_the_files_that_are_no_videos(
    dirty: Path, indexed: subprocess.CompletedProcess[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert indexed.returncode == 0, indexed.stderr
    found = VideoIndex.open(dirty.parent / "i")
    options = tiny.options(tiny.overrides(found, "train.epochs=1", "schedule.warmup_epochs=0"))
    code, told, err = tiny.said(capsys, "train", "-c", "demo", "--run", tmp_path / "run", *options)
    assert code == 0, err
    assert f"{tmp_path / 'run'}: 4 steps" in told
    code, told, err = tiny.said(capsys, "eval", "--run", tmp_path / "run")
    assert code == 0, err
    assert "evaluated 16 of 16 videos" in told


def test_a_folder_that_is_called_like_a_video_is_an_error_where_it_is_listed(dirty: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("train/left/folder.avi,left\n", encoding="utf-8")
    done = tiny.call("data", "index", dirty, "--index", tmp_path / "i", "--lists", tmp_path / "l.csv")
    assert done.returncode == 3
    assert "none of 1 listed videos can be used: train/left/folder.avi: a folder, not a video" in done.stderr
    assert not (tmp_path / "i").exists()


def test_what_nobody_may_read_is_left_out_and_the_others_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(6):
        (root / "abc"[number % 3]).mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(root / "abc"[number % 3] / f"{number}.avi", num_frames=4 + number)
    (root / "a" / "3.avi").chmod(0)
    (root / "c").chmod(0)
    try:
        done = _without_rights("data", "index", root)
        assert done.returncode == 0, done.stderr
        assert "videos   3 (" in done.stdout
        assert "  can't be read: a/3.avi (Permission denied)\n" in done.stdout
        assert "  unreadable folder: c\n" in done.stdout
        done = _without_rights("data", "check", root)
        assert "    a/3.avi: can't be read (Permission denied)\n" in done.stdout
        (root / "b").chmod(0)
        done = _without_rights("data", "check", root, "--full")
        assert done.returncode == 3
        for name in ("b/1.avi", "b/4.avi"):
            assert f"    {name}: can't be read (Permission denied)\n" in done.stdout
        assert "decoded  1 files from start to end" in done.stdout
    finally:
        for folder in "bc":
            (root / folder).chmod(0o755)
    (root / "a" / "3.avi").chmod(0o644)
    done = tiny.call("data", "index", root)  # that it could not be read is not remembered
    assert done.returncode == 0, done.stderr
    assert "videos   6 (" in done.stdout


def _without_rights(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        without_rights(tiny.command(*arguments)), env={**os.environ, "PYTHONPATH": str(tiny.REPO)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_video_that_changes_under_a_run_is_named_and_never_read_as_it_was(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    copy = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0)
    changed = tmp_path / "data" / copy[int(copy.columns("train").video_id[0])].path
    clips.write_stamped_video(changed, num_frames=30)
    options = tiny.options(tiny.overrides(copy, "train.epochs=1", "schedule.warmup_epochs=0"))
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "--run", tmp_path / "run", *options)
    assert code == 3
    assert f"{changed}: changed since it was indexed" in err
    assert "1 of 24 training videos can't be read, more than data.max_bad_fraction 0.01" in err
    allowed = ("-o", "data.max_bad_fraction=0.1")
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "--run", tmp_path / "other", *options, *allowed)
    assert code == 0, err
    assert f"{changed}: changed since it was indexed" in err
    assert sum(record["count"] for record in records(tmp_path / "other", "train")) == 23

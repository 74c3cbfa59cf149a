"""A data set that was copied without the times of its files: every command goes on with the index of the original."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny

from pipelines.index.video_index import VideoIndex


@pytest.fixture
def copy(index: VideoIndex, tmp_path: Path) -> Path:
    """The data set of `index` at another place, as `cp -r` leaves it: each file is a day newer."""
    place = tmp_path / "elsewhere" / "data"
    shutil.copytree(index.root, place, copy_function=shutil.copyfile)
    for path in place.rglob("*.avi"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 86_400_000_000_000))
    return place


def figures(capsys: pytest.CaptureFixture[str], run: Path, to: Path, *options: str) -> dict[str, float]:
    code, out, _ = tiny.said(capsys, "eval", "--run", run, "--json", to, *tiny.options(list(options)))
    assert code == 0
    assert "evaluated 16 of 16 videos" in out
    result: dict[str, float] = json.loads(to.read_text(encoding="utf-8"))["video"]
    return result


def test_training_evaluation_and_predictions_go_on_with_a_copy(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, copy: Path, tmp_path: Path
) -> None:
    run, half = tmp_path / "run", tiny.overrides(index, "train.epochs=2")
    assert tiny.said(capsys, "train", "-c", "demo", "--run", run, *tiny.options(half))[0] == 0
    moved = [*tiny.overrides(index, "train.epochs=3"), f"data.root={copy}"]
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "--run", run, "--resume", "auto", *tiny.options(moved))
    assert code == 0, err
    assert "changed since it was indexed" not in err
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["count"] for line in lines if line["kind"] == "train"] == [6] * 12  # no clip is missing
    assert figures(capsys, run, tmp_path / "1.json", f"data.root={copy}") == figures(
        capsys, run, tmp_path / "2.json", f"data.root={index.root}"
    )
    video = index[0].path
    said = [tiny.said(capsys, "predict", run, root / video)[1].split(": ", 1)[1] for root in (index.root, copy)]
    assert said[0] == said[1]


def test_the_index_of_the_original_is_taken_for_the_copy(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, copy: Path, tmp_path: Path
) -> None:
    shutil.copy(index.path, tmp_path / "elsewhere" / "data.r3dindex")
    code, out, _ = tiny.said(capsys, "data", "index", copy)
    assert (code, "left out 0" in out) == (0, True)
    again = VideoIndex.open(tmp_path / "elsewhere" / "data.r3dindex")
    assert (again.root, again.digest) == (copy, index.digest)


def test_another_byte_in_a_copy_is_never_taken_for_the_same_video(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, copy: Path, tmp_path: Path
) -> None:
    run = tiny.trained(tmp_path / "run", index, "train.epochs=2")
    changed = copy / index[int(index.columns("test").video_id[0])].path
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    options = tiny.options([f"data.root={copy}"])
    code, out, err = tiny.said(capsys, "eval", "--run", run, *options)
    assert code == 3
    assert "changed since it was indexed: the same size, but other bytes; index the data set again" in err
    assert "evaluated 15 of 16 videos" in out

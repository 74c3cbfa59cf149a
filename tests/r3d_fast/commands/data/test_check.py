from __future__ import annotations

import json
import shutil
from pathlib import Path

import oddities
import pytest
import tiny
from clips import write_stamped_video

from pipelines.index.video_index import VideoIndex


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a copy across splits, an HDR and a turned video, a cut one, and a text."""
    for number, path in enumerate(("train/a/0", "train/a/1", "train/b/2", "train/b/3", "test/a/4", "test/b/5")):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        write_stamped_video(tmp_path / "data" / f"{path}.avi", num_frames=20 + number)
    data = tmp_path / "data"
    shutil.copy(data / "train/a/0.avi", data / "test/a/copy.avi")
    oddities.write_turned(data / "train/b/turned.mp4", degrees=90)
    oddities.write_set(data / "train/b/hdr.mp4", pix_fmt="yuv420p10le", color_trc=16, color_primaries=9, colorspace=9)
    (data / "train/b/cut.avi").write_bytes((data / "train/b/3.avi").read_bytes()[:-2000])
    (data / "list.txt").write_text("x")
    VideoIndex.build(data, workers=0)
    return data


def test_the_table_says_what_is_there_and_what_is_wrong(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, err = tiny.said(capsys, "data", "check", root.with_suffix(".r3dindex"))
    assert (code, err) == (3, "compared 1/2  ETA 0:00\ncompared 2/2  ETA 0:00\n")
    lines = out.splitlines()
    assert lines[1:5] == [
        "videos   9 (6 train, 3 test)",
        "  class   train    test",
        "  a           2       2",
        "  b           4       1",
    ]
    assert "ignored  .txt (1)" in lines
    assert "decoded  none; --full decodes all" in lines
    at = lines.index("problems 1")
    assert lines[at + 1 : at + 3] == [
        "  1 video copied into another split: accuracy on it is no measure:",
        "    test/a/copy.avi (test) = train/a/0.avi (train)",
    ]
    for line in (
        "  1 file left out of the index:",
        "  2 classes with fewer than 10 videos:",
        "  1 video in HDR, whose colours are not tone-mapped: pale:",
        "  1 video turned upright, as the metadata asks:",
    ):
        assert line in lines


def test_json_has_the_values_and_the_findings(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, err = tiny.said(capsys, "data", "check", root, "--full", "--json", "-")
    found = json.loads(out)
    assert code == 3
    assert (found["videos"], found["decoded"], found["splits"]) == (9, 9, {"train": 6, "test": 3})
    assert found["copies"][0]["paths"] == ["test/a/copy.avi", "train/a/0.avi"]
    assert [item["level"] for item in found["findings"]].count("problem") == 1
    assert "decoded  9 files from start to end" in err


def test_a_data_set_without_a_problem_ends_with_0(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    (root / "test/a/copy.avi").unlink()
    VideoIndex.build(root, workers=0)
    code, out, _ = tiny.said(capsys, "data", "check", root)
    assert (code, "problems 0\n" in out) == (0, True)


def test_what_is_no_index_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "my videos").mkdir()
    (tmp_path / "text").write_text("x")
    for path, says in (
        (tmp_path / "my videos", f"not indexed yet; first run: r3d-fast data index '{tmp_path}/my videos'"),
        (tmp_path / "nothing", "no such index"),
        (tmp_path / "text", "not a readable index"),
    ):
        code, out, err = tiny.said(capsys, "data", "check", path)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert says in err


def test_the_quarantine_is_filled_by_what_is_proven_and_cleared(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    write_stamped_video(root / "train/a/bad.avi", num_frames=40, size=(256, 192), gop=100)
    VideoIndex.build(root, workers=0)
    record = next(
        r for r in map(VideoIndex.open(root.with_suffix(".r3dindex")).__getitem__, range(10)) if "bad" in r.path
    )
    data, table = bytearray((root / record.path).read_bytes()), record.packets
    for offset, size in zip(table.offset[1:].tolist(), table.size[1:].tolist(), strict=True):
        data[offset + size // 3 : offset + size // 2] = bytes(size // 2 - size // 3)
    (root / record.path).write_bytes(data)
    VideoIndex.build(root, workers=0)
    code, out, _ = tiny.said(capsys, "data", "check", root, "--quarantine", "--max-corrupt-fraction", "0.1")
    path = root.with_suffix(".r3dindex.quarantine")
    assert (code, out.splitlines()[-1]) == (3, f"1 in quarantine now: {path}")
    index = VideoIndex.open(root.with_suffix(".r3dindex"))
    assert [index.names()[number] for number in index.known_bad] == ["train/a/bad.avi"]
    _, out, _ = tiny.said(capsys, "data", "check", root)
    assert "  1 video in quarantine: no clip is read of them until --clear-quarantine:" in out.splitlines()
    _, out, err = tiny.said(capsys, "data", "check", root, "--clear-quarantine")
    assert f"{path}: 1 entry deleted" in err
    assert "in quarantine" not in out
    assert not path.exists()


def test_a_list_without_leaks_is_written_and_taken(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    lists = root.parent / "lists"
    code, out, _ = tiny.said(capsys, "data", "check", root, "--fix-list", lists)
    assert code == 3
    assert f"lists    {lists}: test.csv, train.csv; 1 video left out" in out.splitlines()
    assert "    train/a/0.avi: a copy of test/a/copy.avi" in out.splitlines()
    code, _, _ = tiny.said(capsys, "data", "index", root, "--lists", lists, "--index", root.parent / "fixed.r3dindex")
    assert code == 0
    code, out, _ = tiny.said(capsys, "data", "check", root.parent / "fixed.r3dindex")
    assert (code, "problems 0" in out.splitlines()) == (0, True)


def test_what_can_not_be_written_is_said_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    for option, path in (
        ("--fix-list", root),
        ("--fix-list", root / "no" / "lists"),
        ("--json", root / "no" / "f.json"),
    ):
        code, out, err = tiny.said(capsys, "data", "check", root, "--full", option, path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert str(path) in err

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import oddities
import pytest
import tiny
from clips import write_stamped_video
from cut_files import ENCRYPTED, write_layout
from damage.mostly_damaged import write_mostly_damaged

from pipelines.index.video_index import VideoIndex


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with odd videos of two classes."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
    a, b = tmp_path / "data" / "a", tmp_path / "data" / "b"
    for number in range(4):
        oddities.write_turned(a / f"turned{number}.mp4", degrees=90)
    oddities.write_set(a / "hdr.mp4", pix_fmt="yuv420p10le", color_trc=16, color_primaries=9, colorspace=9)
    oddities.write_interlaced(b / "fields.mpg")
    oddities.write_set(b / "two.mp4", streams=2)
    oddities.write_picture(b / "one.mp4", "mjpeg", "image2", "yuvj420p")
    oddities.write_picture(b / "two.avi", "png", "image2", "rgb24")
    both = oddities.write_turned(b / "both.mp4", degrees=180)
    both.write_bytes(both.read_bytes() + b"\0\0\x10\0free")  # its last box lacks its end
    write_stamped_video(b / "plain.avi", num_frames=20)
    write_stamped_video(b / "large.avi", num_frames=2, size=(256, 192))
    write_layout(b / "locked.mp4", ENCRYPTED)
    cut = write_stamped_video(b / "cut.avi", num_frames=20)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return tmp_path / "data"


def test_what_is_odd_is_counted_in_a_line_each(capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path) -> None:
    options = ("--max-pixels", "20000", "--json", tmp_path / "s.json")
    code, out, err = tiny.said(capsys, "data", "index", root, *options)
    assert code == 0
    lines = out.splitlines()
    begin = lines.index("odd      8 of 11 videos")
    assert lines[begin + 1 : begin + 6] == [
        "  5 videos are turned upright, as their metadata asks",
        "  1 video (a/hdr.mp4) is HDR; its colours are not tone-mapped",
        "  1 video (b/fields.mpg) is interlaced; its frames are not deinterlaced",
        "  1 video (b/two.mp4) has several video streams; the first one is taken",
        "  1 video (b/both.mp4): something cut short behind the frames",
    ]
    assert lines[begin + 6] == "left out 3"
    truncated, large, encrypted = lines[begin + 7 : begin + 10]
    missing = r"its last \d+ KB of \d+ KB are missing; .*`predict --allow-partial` take the frames before that"
    assert re.fullmatch(rf"  truncated: b/cut\.avi \({missing}\)", truncated)
    assert large == "  too large: b/large.avi (256x192 px, the limit is 20000 px a frame; --max-pixels 49152 allows it)"
    assert encrypted == "  encrypted: b/locked.mp4 (cenc; make a decrypted copy of it)"
    warning = "warning: 2 files are pictures; they are taken as videos of one frame: b/one.mp4, b/two.avi"
    assert err.splitlines().count(warning) == 1
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert summary["notes"]["rotated"] == 5
    assert summary["noted"]["a picture, not a video"] == ["b/one.mp4", "b/two.avi"]
    assert summary["left_out"]["encrypted"] == ["b/locked.mp4"]
    assert summary["left_out_details"]["b/locked.mp4"] == "cenc; make a decrypted copy of it"


def test_the_commands_that_are_said_to_take_the_rest_have_the_option(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:  # fmt: skip
    _, out, _ = tiny.said(capsys, "data", "index", root)
    named = re.findall(r"`([a-z ]+) --allow-partial`", out)
    assert named == ["data index", "predict"]
    for name in named:
        code, usage, _ = tiny.said(capsys, *name.split(), "--help")
        assert code == 0
        assert "--allow-partial" in usage


def write_cuts(folder: Path) -> None:
    """Three videos that are cut short: one sound, one with most frames damaged, one without a frame."""
    sound, damaged, empty = (folder / f"{name}.avi" for name in ("sound", "damaged", "empty"))
    write_stamped_video(folder / "whole.avi", num_frames=4)
    write_stamped_video(sound, num_frames=20)
    write_mostly_damaged(damaged)
    for path in (sound, damaged):
        path.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"idx1") - 50])
    empty.write_bytes(sound.read_bytes()[:100])


def test_options_are_advised_only_where_they_take_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    write_cuts(root / "a")
    _, out, _ = tiny.said(capsys, "data", "index", root)
    lines = [line for line in out.splitlines() if line.startswith("  truncated: ")]
    advised = {re.split("[/.]", line)[1]: option for line in lines for option in re.findall("`data index (.*?)`", line)}
    assert len(lines) == 3
    assert advised.keys() == {"sound", "damaged"}
    assert advised["sound"] == "--allow-partial"
    assert re.fullmatch(r"--allow-partial --max-corrupt-fraction 0\.\d+", advised["damaged"])
    for name, options in advised.items():
        assert tiny.said(capsys, "data", "index", root, *options.split())[0] == 0
        assert f"a/{name}.avi" in VideoIndex.open(root.with_suffix(".r3dindex")).names()


def test_with_the_options_what_was_left_out_is_taken(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, _ = tiny.said(capsys, "data", "index", root, "--allow-partial")
    assert code == 0
    assert "left out 1\n  encrypted: b/locked.mp4" in out
    assert "  1 video (b/cut.avi) is truncated; the frames that are left are taken\n" in out


def test_nothing_is_said_where_nothing_is_odd(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    write_stamped_video(tmp_path / "data" / "a" / "v.avi", num_frames=4)
    code, out, err = tiny.said(capsys, "data", "index", tmp_path / "data")
    assert (code, "odd" in out, "picture" in err) == (0, False, False)


def touch(root: Path, *paths: str, num_frames: int = 4) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_stamped_video(root / path, num_frames=num_frames + number)


def test_the_held_out_videos_are_counted_by_class_and_the_rule_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    touch(tmp_path / "data", *(f"walk/{k}.avi" for k in range(10)), *(f"run/{k}.avi" for k in range(4)))
    code, out, _ = tiny.said(capsys, "data", "index", tmp_path / "data", "--json", tmp_path / "s.json")
    assert code == 0
    lines = out.splitlines()
    at = lines.index("held out 20% of each class, always the same, by a hash of names")
    assert lines[at + 1 : at + 4] == ["  class   train    test", "  run         3       1", "  walk        8       2"]
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert summary["classes_by_split"] == {"run": {"test": 1, "train": 3}, "walk": {"test": 2, "train": 8}}


def test_cuts_of_one_recording_stay_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    touch(tmp_path / "data", *(f"{c}/rec{r}_{k}.avi" for c in "ab" for r in range(5) for k in range(2)))
    code, out, _ = tiny.said(
        capsys, "data", "index", tmp_path / "data", "--group", "rec[0-9]+", "--json", tmp_path / "s.json"
    )
    assert code == 0
    assert "held out 20% of each class, whole groups, always the same, by a hash of names" in out
    assert max(len(line) for line in out.splitlines() if line.startswith("held out")) <= 80
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert (summary["groups"], summary["splits"]) == (5, {"train": 16, "test": 4})


def test_ignored_files_are_counted_by_their_endings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/0.avi", "a/1.avi")
    for name in ("a/notes.txt", "a/one.JPG", "two.jpg", "README"):
        (tmp_path / "data" / name).write_text("x")
    code, out, _ = tiny.said(capsys, "data", "index", tmp_path / "data")
    assert code == 0
    assert "left out 0\nignored  4 not called like a video: .jpg (2), .txt (1), no extension (1)\n" in out


def test_one_video_a_class_is_indexed_with_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/0.avi", "b/1.avi", "c/2.avi")
    code, out, err = tiny.said(capsys, "data", "index", tmp_path / "data")
    assert (code, "videos   3 (3 train)" in out) == (0, True)
    assert "held out none: each class has a single video, which is trained on\n" in out
    assert "warning: classes with only 1 video (3): a, b, c\n" in err
    assert "warning: no video could be held out for testing: there is nothing to evaluate on\n" in err


def test_the_same_video_again_and_again_is_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/0.avi")
    for name in ("a/1.avi", "a/2.avi", "b/0.avi"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "data" / "a" / "0.avi", tmp_path / "data" / name)
    code, _, err = tiny.said(capsys, "data", "index", tmp_path / "data")
    assert code == 0
    command = f"r3d-fast data check {tmp_path}/data.r3dindex"
    assert f"warning: 3 of 4 videos are copies of others, such as a/0.avi = a/1.avi; all of them: {command}\n" in err


def test_no_video_and_no_group_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "none" / "a").mkdir(parents=True)
    (tmp_path / "none" / "a" / "x.txt").write_text("x")
    code, _, err = tiny.said(capsys, "data", "index", tmp_path / "none")
    assert (code, err.count("\n")) == (3, 1)
    assert "no video file" in err
    assert ".txt" in err
    touch(tmp_path / "data", "a/0.avi")
    code, _, err = tiny.said(capsys, "data", "index", tmp_path / "data", "--group", "scene")
    assert (code, err.count("\n")) == (2, 1)
    assert "group 'scene' matches none of 1 paths, such as a/0.avi" in err

from __future__ import annotations

import json
import re
from pathlib import Path

import oddities
import pytest
import tiny
from clips import write_stamped_video
from cut_files import ENCRYPTED, write_layout


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
    missing = r"its last \d+ KB of \d+ KB are missing; --allow-partial takes the frames before that"
    assert re.fullmatch(rf"  truncated: b/cut\.avi \({missing}\)", truncated)
    assert large == "  too large: b/large.avi (256x192 px, the limit is 20000 px a frame; --max-pixels 49152 takes it)"
    assert encrypted == "  encrypted: b/locked.mp4 (cenc; make a decrypted copy of it)"
    warning = "warning: 2 files are pictures; they are taken as videos of one frame: b/one.mp4, b/two.avi"
    assert err.splitlines().count(warning) == 1
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert summary["notes"]["rotated"] == 5
    assert summary["noted"]["a picture, not a video"] == ["b/one.mp4", "b/two.avi"]
    assert summary["left_out"]["encrypted"] == ["b/locked.mp4"]
    assert summary["left_out_details"]["b/locked.mp4"] == "cenc; make a decrypted copy of it"


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

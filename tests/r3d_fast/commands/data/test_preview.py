"""`r3d-fast data preview`: what it writes and says, and what it says of arguments that it can't use."""

from __future__ import annotations

import re
from pathlib import Path

import av
import pytest
import tiny
from clips import write_classes, write_stamped_video
from faulty_reads import FaultyReads
from PIL import Image

from pipelines.index.video_index import VideoIndex
from pipelines.isolation.reserve import reserve

SMALL = ("-o", "clip.num_frames=4", "-o", "augment.size_px=16", "-o", "loader.workers=1", "-o", "loader.threads=1")


def test_a_picture_and_a_video_of_clips(index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, film = tmp_path / "sheet.png", tmp_path / "film.mp4"
    code, said, _ = tiny.said(
        capsys, "data", "preview", index.path, *SMALL, "--clips", 3, "--out", sheet, "--mp4", film
    )
    assert code == 0
    assert said == f"{sheet}: 3 clips of split train of {index.path}\n{film}: the same clips, moving\n"
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    with av.open(film) as video:
        assert len(list(video.decode(video=0))) == 4 * 4


def test_another_split_is_shown_as_it_is_evaluated(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = tiny.said(
        capsys, "data", "preview", index.path, *SMALL, "--split", "test", "--out", tmp_path / "a.png"
    )
    assert (code, said) == (0, f"{tmp_path / 'a.png'}: 8 clips of split test of {index.path}\n")


def test_clips_that_cant_be_read_are_drawn_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_classes(tmp_path / "videos", 4)
    index = VideoIndex.build(root, workers=0)
    (root / "a" / "v0.avi").unlink()
    sheet = tmp_path / "a.png"
    code, _, said = tiny.said(capsys, "data", "preview", root, *SMALL, "--out", sheet, "--split", index[0].split)
    assert code == 3
    assert re.fullmatch(r"r3d-fast: 1 of \d clips can't be read; first: .*v0\.avi.*\n", said)
    assert sheet.stat().st_size > 1000


def test_a_video_that_crashes_the_decoder_is_named_and_the_others_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when its whole frame is read: the loader's process started before the fault."""
    root, sheet = write_classes(tmp_path / "videos", 4), tmp_path / "a.png"
    index = VideoIndex.build(root, workers=0)
    kept = reserve(1)
    FaultyReads(tmp_path, monkeypatch).begin(index[0].path, "segv")
    code, out, said = tiny.said(capsys, "data", "preview", root, *SMALL, "--out", sheet, "--split", index[0].split)
    kept.close()
    crash = "crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert re.fullmatch(rf"r3d-fast: 1 of \d clips can't be read; first: {root / index[0].path}: {crash}\n", said)
    assert code == 3
    assert out.startswith(f"{sheet}: ")
    assert sheet.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("{out}.r3dindex",), 3, "no such index"),
        (("{video}",), 3, "not a readable index"),
        (("{empty}",), 3, "not indexed yet; first run: r3d-fast data index"),
        (("{index}", "--split", "other"), 3, "other"),
        (("{index}", "--clips", "0"), 2, "--clips"),
        (("{index}", "--out", "{out}/missing/a.png"), 2, "a.png"),
        (("{index}", "--mp4", "{video}"), 2, "it is a video"),
        (("{index}", "--out", "{index}"), 2, "index"),
        (("{index}", "-o", "clip.frames=3"), 2, "clip.frames"),
        ((), 2, "INDEX"),
    ],
)
def test_arguments_that_cant_be_used_are_one_line(
    arguments: tuple[str, ...], code: int, says: str, index: VideoIndex, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = {
        "out": tmp_path / "out", "index": index.path, "empty": tmp_path / "empty",
        "video": write_stamped_video(tmp_path / "v.avi", num_frames=2),
    }  # fmt: skip
    before = index.path.read_bytes()
    given = [argument.format(**names) for argument in arguments]
    found, _, said = tiny.said(capsys, "data", "preview", *given)
    assert (found, len(said.splitlines())) == (code, 1), said
    assert says in said
    assert index.path.read_bytes() == before

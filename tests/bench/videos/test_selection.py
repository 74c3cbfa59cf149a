"""The videos that a measurement is made on."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import write_classes
from faulty_reads import FaultyReads

from bench.videos.selection import keep_selection, kept_selection, select_videos, selected_videos, unreadable
from pipelines.errors import UsageError


@pytest.mark.parametrize("number", [3, 20])
def test_videos_that_are_indexed_and_not_readable_are_left_out_too(number: int, tmp_path: Path) -> None:
    """Of 3 videos one process reads clips, of 40 several do."""
    index = select_videos(write_classes(tmp_path / "v", number), tmp_path).index
    (tmp_path / "v" / "b" / "v1.avi").unlink()
    assert unreadable(index) == {"b/v1.avi": "can't be read: No such file or directory"}


def test_a_video_that_crashes_the_decoder_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = select_videos(write_classes(tmp_path / "v", 3), tmp_path).index
    FaultyReads(tmp_path, monkeypatch).begin("b/v1.avi", "segv")
    crash = "crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert unreadable(index) == {"b/v1.avi": crash}


def test_fewer_videos_are_spread_over_all(videos: Path, tmp_path: Path) -> None:
    index = select_videos(videos, tmp_path, 4).index
    assert [index[i].path for i in range(len(index))] == ["class0/v0.avi", "class0/v4.avi", "class1/v3.avi"]
    assert len(select_videos(videos, tmp_path, 99).index) == 6


def test_a_selection_that_is_kept_is_made_once(videos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    kept = tmp_path / "kept"
    with selected_videos(videos, said.append, 7, kept) as first:
        names = first.index.names()
    begin = (kept / "clips.r3dindex").stat().st_mtime_ns
    with selected_videos(videos, said.append, 7, kept) as second:
        assert (second.index.names(), second.excluded) == (names, first.excluded)
        assert second.index_files_per_cpu_second == first.index_files_per_cpu_second
    assert (kept / "clips.r3dindex").stat().st_mtime_ns == begin
    assert said == [f"{len(names)} videos, {len(first.excluded)} excluded"] * 2
    assert first.excluded
    assert kept_selection(videos, kept, 7) is not None


def test_a_selection_of_other_videos_or_a_damaged_one_is_made_anew(videos: Path, tmp_path: Path) -> None:
    keep_selection(videos, tmp_path, 7)
    assert kept_selection(videos, tmp_path, 4) is None
    assert kept_selection(videos / "class0", tmp_path, 7) is None
    (tmp_path / "clips.r3dindex").write_bytes(b"damaged")
    assert kept_selection(videos, tmp_path, 7) is None
    (tmp_path / "clips.r3dindex").unlink()
    with selected_videos(videos, lambda _: None, 4, tmp_path) as clips:
        assert len(clips.index) == 3
    (tmp_path / "selection.json").write_text("[]")
    assert kept_selection(videos, tmp_path, 4) is None


def test_a_folder_for_the_selection_that_can_not_be_written_is_one_line(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a part of the path is a file"):
        keep_selection(videos, tmp_path / "file" / "x", 4)

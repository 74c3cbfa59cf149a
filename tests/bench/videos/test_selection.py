"""The videos that a measurement is made on."""

from __future__ import annotations

from pathlib import Path

from clips import write_classes

from bench.videos.selection import select_videos, unreadable


def test_videos_that_are_indexed_and_not_readable_are_left_out_too(tmp_path: Path) -> None:
    index = select_videos(write_classes(tmp_path / "v", 3), tmp_path).index
    (tmp_path / "v" / "b" / "v1.avi").unlink()
    assert unreadable(index) == {"b/v1.avi": "can't be read: No such file or directory"}


def test_fewer_videos_are_spread_over_all(videos: Path, tmp_path: Path) -> None:
    index = select_videos(videos, tmp_path, 4).index
    assert [index[i].path for i in range(len(index))] == ["class0/v0.avi", "class0/v4.avi", "class1/v3.avi"]
    assert len(select_videos(videos, tmp_path, 99).index) == 6

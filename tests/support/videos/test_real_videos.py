from __future__ import annotations

from pathlib import Path

from clips import write_classes
from real_videos import find_real_videos, index_some


def test_a_folder_of_classes_is_taken_as_it_is(tmp_path: Path) -> None:
    videos = write_classes(tmp_path / "videos", 9, classes="abc", num_frames=8)
    assert find_real_videos(videos) == videos
    videos.rename(tmp_path / "UCF-101")
    assert find_real_videos(tmp_path) == tmp_path / "UCF-101"
    assert find_real_videos(tmp_path / "UCF-101" / "a") is None
    assert find_real_videos(tmp_path / "missing") is None


def test_some_are_spread_over_all(tmp_path: Path) -> None:
    videos = write_classes(tmp_path / "videos", 12, classes="abc", num_frames=8)
    index = index_some(videos, tmp_path / "some", 6)
    assert [index[k].path.split("/")[0] for k in range(len(index))] == ["a", "a", "b", "b", "c", "c"]
    assert len(index_some(videos, tmp_path / "all")) == 12

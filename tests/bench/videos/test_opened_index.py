from __future__ import annotations

from pathlib import Path

import pytest
from clips import write_classes

from bench.videos.opened_index import opened_index
from pipelines.errors import DataError
from pipelines.index.video_index import VideoIndex


def silent(_: str) -> None:
    """Say nothing."""


def test_an_index_is_opened_and_a_folder_indexed_for_as_long_as_it_takes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "videos", 4, classes=("a", "b"))
    with opened_index(root, silent) as index:
        assert (len(index), index.root, index.path.is_file()) == (4, root, True)
    assert not index.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
    own = VideoIndex.build(root, index=tmp_path / "own.r3dindex", workers=0)
    with opened_index(own.path, silent) as index:
        assert index.digest == own.digest


def test_the_index_beside_a_folder_is_taken(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "videos", 4, classes=("a", "b"))
    beside = VideoIndex.build(root, workers=0)
    with opened_index(root, silent) as index:
        assert index.path == beside.path


def test_what_is_no_data_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.r3dindex").write_text("no index")
    for name, message in (
        ("nowhere", "nowhere: no such file or folder; expected an index or a folder of videos"),
        ("empty", "empty: "),
        ("text.r3dindex", r"text\.r3dindex: not a readable index"),
    ):
        with pytest.raises(DataError, match=message), opened_index(tmp_path / name, silent):
            pass

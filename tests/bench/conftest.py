"""The videos that the tests of bench are made on."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import write_classes


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 good videos, an empty one, and one cut in half."""
    root = write_classes(tmp_path_factory.mktemp("bench") / "videos", 7, classes=("class0", "class1"), num_frames=40)
    half = root / "class0" / "v6.avi"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    (root / "class1" / "empty.avi").touch()
    return root


@pytest.fixture(scope="module")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 small videos of three classes."""
    return write_classes(tmp_path_factory.mktemp("train") / "videos", 8, classes="abc")

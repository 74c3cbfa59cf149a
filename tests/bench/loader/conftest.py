"""Videos for several tests of the loader's measurements."""

from __future__ import annotations

from pathlib import Path

import clips
import pytest
from clips import write_classes

from pipelines.index.video_index import VideoIndex

LENGTHS = (48, 36, 5, 60, 24, 72)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Six stamped videos of two classes; one shorter than a clip, two with one key frame."""
    root = tmp_path_factory.mktemp("peers") / "data"
    for i, num_frames in enumerate(LENGTHS):
        folder = root / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(folder / f"{i}.avi", num_frames=num_frames, gop=12 if i % 3 else 300)
    return VideoIndex.build(root, val_fraction=0, workers=0)


@pytest.fixture(scope="module")
def mjpeg_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("gpu") / "videos", 6, codec="mjpeg")

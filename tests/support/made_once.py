"""Fixtures of the command line's tests and of those of faults: what takes long to make, made once a process."""

from __future__ import annotations

from pathlib import Path

import clips
import pytest
import tiny

from pipelines.index.video_index import VideoIndex


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The tiny data set, to be left as it is."""
    return tiny.make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network for its classes, as it is before training, to be left as it is."""
    return tiny.untrained(tmp_path_factory.mktemp("model") / "run", classes=index.classes)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 30 frames, to be left as it is."""
    return clips.write_stamped_video(tmp_path_factory.mktemp("videos") / "v.avi", num_frames=30)

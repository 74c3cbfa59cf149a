from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from pipelines.index.video_index import VideoIndex


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The tiny data set, to be left as it is."""
    return tiny.make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network as it is before training, to be left as it is."""
    return tiny.untrained(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture
def limit() -> Iterator[Any]:
    """A function that limits the size of files of this process, without a size no more.

    It stands in for a full disk: the kernel refuses a longer file with EFBIG.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=before[0]: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

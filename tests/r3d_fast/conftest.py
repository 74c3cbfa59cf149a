from __future__ import annotations

import pytest
import tiny

from pipelines.index.video_index import VideoIndex


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The tiny data set, to be left as it is."""
    return tiny.make_tiny(tmp_path_factory.mktemp("tiny"))

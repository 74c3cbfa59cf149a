from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import pytest
from made_once import index, model, video  # noqa: F401 - fixtures


@pytest.fixture
def limit() -> Iterator[Any]:
    """A function that limits the size of files of this process, without a size no more.

    It stands in for a full disk: the kernel refuses a longer file with EFBIG.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=before[0]: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

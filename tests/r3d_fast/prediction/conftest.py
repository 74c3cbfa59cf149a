from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.isolation.reserve import reserve


@pytest.fixture(autouse=True, scope="package")
def processes() -> Iterator[None]:
    """Keeps the processes that decode from one test to the next: each would start its own."""
    kept = reserve(2)
    yield
    kept.close()

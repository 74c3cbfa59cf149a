from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from browser import PROGRAM, Browser

from pipelines.index.video_index import VideoIndex


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. Without it the tests are skipped, or fail under R3D_REQUIRE_BROWSER=1."""
    if not Path(PROGRAM).exists():
        what = f"no {PROGRAM}: apt-get install -y chromium"
        if os.environ.get("R3D_REQUIRE_BROWSER") == "1":
            pytest.fail(what)
        pytest.skip(what)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()


@pytest.fixture(scope="session")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, with its report, to be left as it is."""
    return tiny.trained(tmp_path_factory.mktemp("report") / "run", index, "train.report=true")

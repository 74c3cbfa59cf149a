"""`bench index`."""

from __future__ import annotations

import json
from pathlib import Path

from bench_process import bench


def test_index_says_how_fast_files_are_indexed_and_a_large_one_opens(videos: Path, tmp_path: Path) -> None:
    done = bench("index", "--data", videos, "--videos", "2000", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "a.json").read_text())
    assert (values["files"], values["rows of the large index"]) == (6, 2000)
    assert values["files per CPU second"]["median"] > 0
    assert 0 < values["seconds to open it"]["median"] < 60
    assert 0 < values["seconds to shuffle an epoch"]["median"] < 60

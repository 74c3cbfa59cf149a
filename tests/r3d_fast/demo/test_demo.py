from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny


@pytest.mark.slow
def test_the_demo_learns_motion_and_says_where_everything_lies(tmp_path: Path) -> None:
    done = tiny.call("demo", cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    found = re.search(r"On 64 unseen videos: top1 ([\d.]+) %", done.stdout)
    assert found is not None
    assert float(found.group(1)) >= 90.0
    for path in re.findall(r"^  (\S+): ", done.stdout, re.M):
        assert (tmp_path / path).exists(), path
    assert re.search(r"demo/data/test/rotate_left/000.avi: \w+ [\d.]+ %, ", done.stdout)
    # Not a terminal: plain lines with all that a run should show.
    line = next(line for line in done.stderr.splitlines() if line.startswith("train "))
    assert re.fullmatch(
        r"train \d+/216  epoch \d+/12  loss [\d.]+  top1 [\d.]+ %  [\d.]+ clips/s  data \d+ %  ETA [\d:]+", line
    )
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]

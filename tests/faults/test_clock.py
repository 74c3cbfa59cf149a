"""A wall clock that is set while a run is going on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import tiny
from jumping_clock import with_jumping_clock
from runs import records

from pipelines.index.video_index import VideoIndex


def test_a_wall_clock_that_jumps_back_and_forth_makes_no_rate_negative(index: VideoIndex, tmp_path: Path) -> None:
    options = tiny.overrides(index, "train.epochs=1", "schedule.warmup_epochs=0", "train.log_every_steps=1")
    done = subprocess.run(
        tiny.command("train", "-c", "demo", "--run", tmp_path / "run", *tiny.options(options)),
        env={**with_jumping_clock(tmp_path / "clock"), "PYTHONPATH": str(tiny.REPO)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "run")
    assert [record["kind"] for record in found] == ["train"] * 4 + ["eval"]
    for record in found:
        assert 0 < record["seconds"] < 240
        assert record["kind"] == "eval" or (record["clips_per_second"] > 0 and 0 <= record["wait_share"] <= 1)

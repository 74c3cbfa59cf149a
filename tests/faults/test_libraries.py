"""An installation that lacks a library, or whose library does not load."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import tiny

from pipelines.index.video_index import VideoIndex


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (
            "nvidia.dali",
            "NVIDIA DALI can't be imported (libgomp.so.1 is gone); install it with: pip install 'r3d-fast[",
        ),
        ("paddle", "Paddle can't be imported (libgomp.so.1 is gone); install it with: pip install 'r3d-fast[cpu]'"),
        ("av", "a library can't be imported (libgomp.so.1 is gone); to see what is missing, run: r3d-fast doctor"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_what_installs_it(
    index: VideoIndex, tmp_path: Path, library: str, said: str
) -> None:
    place = tmp_path / "fake"
    for part in library.split("."):
        place /= part
        place.mkdir(parents=True, exist_ok=True)
        (place / "__init__.py").touch()
    (place / "__init__.py").write_text("raise ImportError('libgomp.so.1 is gone')", encoding="utf-8")
    options = tiny.options(tiny.overrides(index, "train.epochs=1", "schedule.warmup_epochs=0"))
    run = tmp_path / "run"
    done = subprocess.run(
        tiny.command("train", "-c", "demo", "--run", run, *options),
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'fake'}{os.pathsep}{tiny.REPO}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not run.exists()  # or the corrected try would be refused

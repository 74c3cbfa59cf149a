"""The command `bench`, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
SMALL = ("model.name=r3d10", "model.width=4", "augment.size_px=32", "clip.num_frames=4", "loader.workers=1")


def bench(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process of a `bench` command, in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-m", "bench.cli", *map(str, arguments)]
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])  # PyTorch may be there
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def small(*more: str) -> list[str]:
    """The options for a small model and small clips, and for the overrides `more`."""
    return [part for value in (*SMALL, *more) for part in ("-o", value)]

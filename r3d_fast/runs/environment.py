"""What a run was made on: versions, command, machine, GPU, commit; never a host name or a user."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipelines.machine.cpus import _cpu_name
from pipelines.machine.nvidia import probe_driver
from r3d_fast.version import __version__

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "nvidia-dali-cuda110", "nvidia-dali-cuda120", "nvidia-dali-cuda130")


def environment() -> dict[str, Any]:
    """What the run ran on: versions, processor, CPUs, GPUs and driver, commit of the source if there is one."""
    versions = {"r3d-fast": __version__, "python": platform.python_version()}
    for name in (*_PACKAGES, "numpy", "av", "safetensors"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    commit = None
    source = Path(__file__).parents[2]
    if (source / ".git").exists():  # else git would answer for whatever repository the environment lies in
        with suppress(OSError, subprocess.SubprocessError):
            git = ["git", "-C", str(source), "rev-parse", "HEAD"]
            commit = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    driver = probe_driver()
    return {
        "versions": versions,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": [gpu.name for gpu in driver.gpus],
        "driver": driver.version or None,
        "commit": commit,
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }

"""What a run was made on: versions, command, machine, GPU, commit; never a host name or a user."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.nvidia import probe_driver
from pipelines.machine.packages import installed_versions
from r3d_fast.version import __version__

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "nvidia-dali-cuda110", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
_PATIENCE = 5.0  # seconds that git may take


def environment() -> dict[str, Any]:
    """What the run ran on: versions, processor, CPUs, GPUs and driver, commit of the source if there is one."""
    versions = {"r3d-fast": __version__, "python": platform.python_version()}
    driver = probe_driver()
    return {
        "versions": versions | installed_versions((*_PACKAGES, "numpy", "av", "safetensors")),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "gpus": [gpu.name for gpu in driver.gpus],
        "driver": driver.version or None,
        "commit": commit_hash(Path(__file__).parent) or None,
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit_hash(folder: Path, *, short: bool = False) -> str:
    """The hash of the commit that the checkout around `folder` is at, in full or as short as git has it.

    Empty where there is no git, no checkout, or where the checkout around the folder doesn't track it, as with a
    virtual environment inside somebody's project.
    """
    found = _git(folder, "rev-parse", *["--short"] * short, "HEAD")
    return found if found and _git(folder, "ls-files", "--", ".") else ""


def has_changes(folder: Path) -> bool:
    """Whether a tracked file of the checkout around `folder` has changed since its commit."""
    # Untracked files are left out: the results of the run before would make every later run look changed.
    return bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *command: str) -> str:
    """What git prints in `folder`; empty where it is missing, fails or hangs."""
    git = ["git", "-C", str(folder), *command]
    try:
        done = subprocess.run(git, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.strip()

"""Describes what a run is made with: versions, command, machine, GPU, commit; never the host or the user by name."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.input.credentials import without_credentials
from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.nvidia import probe_driver
from pipelines.machine.packages import installed_versions
from r3d_fast.version import __version__

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "nvidia-dali-cuda110", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
_PATIENCE = 5.0  # seconds that git may take


def environment() -> dict[str, Any]:
    """The content of env.json: versions, processor, CPUs, GPUs, driver, command, and the commit of the source."""
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
        "command": list(map(without_credentials, sys.argv)),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit_hash(folder: Path, *, short: bool = False) -> str:
    """The hash of the commit that is checked out around `folder`, in full or, with `short`, as git shortens it.

    It is empty where there is no git, no checkout, or where the checkout does not track the folder, as when the folder
    is in a virtual environment inside another project.
    """
    found = _git(folder, "rev-parse", *["--short"] * short, "HEAD")
    return found if found and _git(folder, "ls-files", "--", ".") else ""


def has_changes(folder: Path) -> bool:
    """Whether a tracked file in the checkout around `folder` differs from its commit."""
    # Untracked files don't count: results of an earlier run would make every later run look changed.
    return bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *command: str) -> str:
    """The output of a git command in `folder`; empty where git is missing, fails or takes too long."""
    git = ["git", "-C", str(folder), *command]
    try:
        done = subprocess.run(git, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.strip()

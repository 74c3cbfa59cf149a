"""What a figure was measured on: processor, memory, GPU, versions, commit. Never a host name, a user or a path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from pipelines.machine.cpus import usable_cpus

# A figure that was damaged by hand must not load as another figure.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_PACKAGES = (
    "av",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda110",
    "numpy",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "torch",
    "torchcodec",
    "decord",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
)
_PATIENCE = 20  # seconds that nvidia-smi or git may take


@dataclass(frozen=True)
class Machine:
    """A machine and what is installed on it, as far as it bears on speed."""

    cpu: str
    cpus: int  # that this process may use
    memory_gib: float
    gpu: str | None
    os: str
    python: str
    versions: dict[str, str]  # of the packages that are installed, and of libavcodec
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def in_words(self) -> str:
        """Processor, CPUs, memory and GPU in one line."""
        cpus = "1 usable CPU" if self.cpus == 1 else f"{self.cpus} usable CPUs"
        return f"{self.cpu}, {cpus}, {self.memory_gib:.0f} GiB, {self.gpu or 'no GPU'}"


def describe() -> Machine:
    """The machine this runs on."""
    return Machine(
        cpu=_cpu(),
        cpus=usable_cpus(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=_gpu(),
        os=_system(),
        python=platform.python_version(),
        versions=_versions(),
    )


def commit(folder: str | Path) -> str:
    """The short hash of the checkout that `folder` is part of, with "+" where a tracked file has changed since.

    Empty where there is no git, no checkout, or where the checkout around the folder doesn't track it, as with a
    virtual environment inside somebody's project.
    """
    git = ("git", "-C", str(folder))
    short = _output(*git, "rev-parse", "--short", "HEAD")
    if not short or not _output(*git, "ls-files", "--", "."):
        return ""
    # Untracked files are left out: the results of the run before would make every later run look changed.
    return short + ("+" if _output(*git, "status", "--porcelain", "--untracked-files=no") else "")


def _output(*command: str) -> str:
    """What the command prints; empty where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.strip()


def _cpu() -> str:
    """The processor's name; where the kernel doesn't say it, as on many ARM machines, the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    return " ".join(named[1].split()) if named else platform.processor() or platform.machine() or "unknown"


def _gpu() -> str | None:
    """The GPUs by name, such as "2 x NVIDIA A100"; None where nvidia-smi finds none."""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    counted = Counter(name.strip() for name in names if name.strip())
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items()) or None


def _system() -> str:
    """Distribution, kernel and architecture."""
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        distribution = ""
    # Only the number: what follows it was chosen by whoever built the kernel.
    number = re.match(r"[\d.]*\d", platform.release())
    kernel = f"{platform.system()} {number[0] if number else ''}".strip()
    return ", ".join(part for part in (distribution, kernel, platform.machine()) if part)


def _versions() -> dict[str, str]:
    """The version of each package that is installed, by name."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "av" in found:
        try:
            from av import library_versions
        except ImportError:  # Installed, but its libraries don't load.
            return found
        found["libavcodec"] = ".".join(str(part) for part in library_versions["libavcodec"])
    return found

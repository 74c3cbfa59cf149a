"""What a figure was measured on: processor, memory, GPU, versions, commit. Never a host name, a user or a path."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.memory import usable_memory
from pipelines.machine.nvidia import probe_driver
from pipelines.machine.packages import installed_versions
from r3d_fast.runs.environment import commit_hash, has_changes

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
        cpu=cpu_name(),
        cpus=usable_cpus(),
        memory_gib=round(usable_memory() / 2**30, 1),
        gpu=gpus_in_words(gpu.name for gpu in probe_driver().gpus),
        os=_system(),
        python=platform.python_version(),
        versions=_versions(),
    )


def commit(folder: str | Path) -> str:
    """The short hash of the checkout that `folder` is part of, with "+" where a tracked file has changed since.

    Empty where there is none; see `commit_hash`.
    """
    short = commit_hash(Path(folder), short=True)
    return short + "+" * (bool(short) and has_changes(Path(folder)))


def gpus_in_words(names: Iterable[str]) -> str | None:
    """The names of GPUs in words, such as "2 x NVIDIA A100"; None where there is none."""
    counted = Counter(names)
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
    found = installed_versions(_PACKAGES)
    if "av" in found:
        try:
            from av import library_versions
        except ImportError:  # Installed, but its libraries don't load.
            return found
        found["libavcodec"] = ".".join(str(part) for part in library_versions["libavcodec"])
    return found

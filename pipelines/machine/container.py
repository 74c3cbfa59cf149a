"""Finds out in which kind of container the process runs, its limits, and how to give it the NVIDIA driver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_VIDEO = "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
_LIMITS = (
    "cpu.max", "cpuset.cpus.effective", "memory.max", "pids.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us",
    "cpuset/cpuset.cpus", "memory/memory.limit_in_bytes",
)  # fmt: skip
_START_AGAIN = {
    "": "install NVIDIA's driver",
    "Apptainer": f"start the container with --nv and --env {_VIDEO}",
    "Kubernetes": f"ask for nvidia.com/gpu in the pod's resources, and set {_VIDEO} in its environment",
}


def container(*, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str:
    """The kind of container in which the process runs, such as "Docker"; empty outside of a container."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes"
    if "APPTAINER_CONTAINER" in environment or "SINGULARITY_CONTAINER" in environment:
        return "Apptainer"
    for mark, kind in ((".dockerenv", "Docker"), ("run/.containerenv", "Podman")):
        if (root / mark).exists():
            return kind
    try:
        groups = (root / "proc/1/cgroup").read_text(errors="replace")
    except OSError:
        groups = ""
    for word, kind in (("kubepods", "Kubernetes"), ("docker", "Docker"), ("libpod", "Podman"), ("lxc", "LXC")):
        if word in groups:
            return kind
    return environment.get("container", "")


def driver_remedy(outside: str) -> str:
    """What to do to get the driver's libraries: how to start this container, or `outside` if there is no container."""
    kind = container()
    if not kind and outside:
        return outside
    return _START_AGAIN.get(kind, f"start the container with --gpus all -e {_VIDEO}")


def cgroup_limits(cgroups: Path = Path("/sys/fs/cgroup")) -> dict[str, str]:
    """The limits that the container sets, as the kernel's files say them, by the name of the file; of cgroups 1 or 2.

    A file that isn't there is left out: that limit does not exist.
    """
    found = {}
    for name in _LIMITS:
        with suppress(OSError):
            found[name] = (cgroups / name).read_text(errors="replace").strip()
    return found

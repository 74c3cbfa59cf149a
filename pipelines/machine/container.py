"""Finds out in which kind of container the process runs, its limits, and how the NVIDIA driver gets there."""

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
_INSTALL = {
    "ubuntu": "sudo ubuntu-drivers install --gpgpu && sudo reboot",
    "debian": "sudo apt-get install nvidia-driver && sudo reboot   # Debian has it in non-free",
}
_START_AGAIN = {
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


def driver_remedy(outside: str, *, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str:
    """What to do to get the driver's libraries: how to start this container, or `outside` if there is no container.

    Without `outside`: how to install the driver if there is no container.
    """
    kind = container(root=root, environment=environment)
    if not kind:
        return outside or install_driver(root=root, environment=environment)
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


def install_driver(least: str = "", *, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str:
    """What to do to get a driver, of version `least` or later if that is given. In a container it is the host's."""
    newer = f"version {least} or later of NVIDIA's driver" if least else "NVIDIA's driver"
    if kind := container(root=root, environment=environment):
        return f"install {newer} on the host, outside of {kind}, and start the container again"
    try:
        text = (root / "etc/os-release").read_text(errors="replace")
    except OSError:
        text = ""
    named = [line.partition("=")[2].strip('"') for line in text.splitlines() if line.startswith("ID=")]
    return _INSTALL.get(named[0] if named else "", f"install {newer}, and reboot")

"""What this machine is, as far as it bears on speed: card, driver, processors, limits, packages.

Run as a process, `FILE`: it writes JSON and prints what each program said. Left out are serial numbers and identifiers
of cards, what else runs on them, and the addresses that packages were installed from.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.measuring.machine import describe
from pipelines.machine.container import cgroup_limits, container
from pipelines.machine.driver_library import LibraryFailed, installed_libraries
from pipelines.machine.nvidia import pci_bus_id
from pipelines.output.files import write_json

_PROGRAMS = {
    "nvidia-smi": ("nvidia-smi", "-q"),
    "topology": ("nvidia-smi", "topo", "-m"),
    "lscpu": ("lscpu",),
}
_PATIENCE_SECONDS = 12
# Lines of nvidia-smi that tell one card from all others, and what comes below "Processes".
_IDENTIFIERS = re.compile(r"^.*(?:UUID|GUID|Serial Number|GPU PDI|Hostname|Host ID).*\n?", re.M | re.I)
_PROCESSES = re.compile(r"^([ \t]*)Processes\b.*\n(?:\1[ \t]+.*\n)*", re.M)


def inventory() -> dict[str, Any]:
    """Everything, by name; JSON values. What can't be asked is there with the reason."""
    return {
        **asdict(describe()),
        "kernel": platform.release(),
        "container": container() or "none",
        "cgroup": cgroup_limits(),
        "libraries": installed_libraries(),
        "packages": packages(),
        "programs": {name: said_by(command) for name, command in _PROGRAMS.items()},
        "others on the card": others_on_the_card(),
    }


def said_by(command: tuple[str, ...]) -> str:
    """What a program prints, or why it prints nothing, in a line that begins with its name."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{command[0]}: no answer within {_PATIENCE_SECONDS} s"
    if done.returncode:
        first = " ".join((done.stderr or done.stdout).split())[:300]
        return f"{command[0]}: exit code {done.returncode}: {first}"
    return anonymous(done.stdout)


def others_on_the_card() -> int | None:
    """How many programs compute on CUDA's first card now, None where nobody says; in a container none shows.

    nvidia-smi numbers the cards of the machine, CUDA those that CUDA_VISIBLE_DEVICES names: the card's address is asked
    for, not its number.
    """
    try:
        card = pci_bus_id(0)
    except LibraryFailed:
        return None
    said = said_by(("nvidia-smi", f"--id={card}", "--query-compute-apps=pid", "--format=csv,noheader"))
    return None if said.startswith("nvidia-smi: ") else len(re.findall(r"^\s*\d+\s*$", said, re.M))


def anonymous(text: str) -> str:
    """What nvidia-smi says, without what tells this card from others of its kind, or who else uses it."""
    return _PROCESSES.sub("", _IDENTIFIERS.sub("", text))


def packages() -> list[str]:
    """What is installed here, `name==version` each, as `pip freeze` says it but for addresses."""
    found = {f"{package.metadata['Name']}=={package.version}" for package in metadata.distributions()}
    return sorted(found, key=str.lower)


def _main(file: str) -> None:
    found = inventory()
    write_json(Path(file), found)
    for name, text in found["programs"].items():
        print(f"--- {name}\n{text}")
    print("\n".join(found["packages"]))
    print(f"{found['gpu'] or 'no GPU'}; {found['cpu']}, {found['cpus']} usable CPUs")


if __name__ == "__main__":
    _main(*sys.argv[1:])

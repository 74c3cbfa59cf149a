"""Stands in for Slurm on this machine: srun starts its tasks as processes here, and scontrol notes what it is asked."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import tiny

_SCONTROL = """#!/bin/sh
echo "$@" >> "$SLURM_NOTES"
"""
# Each node has an address of its own, and another one that is not the network's.
_HOSTNAME = """#!/bin/sh
echo "127.0.0.$((${SLURM_NODEID:-0} + 2)) 127.0.1.1"
"""
# One task a node, as --ntasks-per-node=1 says, each a node of its own; the highest of their exit codes.
_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_STEP_ID=0 SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do
    code=0
    wait "$task" || code=$?
    ((code <= highest)) || highest=$code
done
exit "$highest"
"""


def programs(folder: Path) -> Path:
    """`folder`, filled with stand-ins for srun, scontrol and hostname, and with this checkout's programs."""
    python = shlex.quote(sys.executable)
    texts = {
        "scontrol": _SCONTROL,
        "hostname": _HOSTNAME,
        "srun": _SRUN,
        "python": f'#!/bin/sh\nexec {python} "$@"\n',
        "r3d-fast": f'#!/bin/sh\nexec {python} -m r3d_fast "$@"\n',
    }
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def start(
    script: Path, folder: Path, bin_folder: Path, nodes: int, number: int, *arguments: str
) -> subprocess.Popen[str]:
    """Job `number`, which runs `script` in `folder` as sbatch would on `nodes` nodes with two GPUs together."""
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tiny.REPO),
        "PYTHONWARNINGS": "ignore",
        "GLOG_minloglevel": "2",
        "SLURM_JOB_ID": str(number),
        "SLURM_NNODES": str(nodes),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_GPUS_ON_NODE": str(2 // nodes),
        "SLURM_NOTES": str(folder / "notes"),
    }
    return subprocess.Popen(
        ["bash", str(script), *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def requeued(folder: Path) -> list[str]:
    """What scontrol was asked to do by the jobs in `folder`."""
    notes = folder / "notes"
    return notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []


def signal_all(folder: Path, number: signal.Signals, *, steps: bool) -> int:
    """Send a signal to every process of the job in `folder`, as Slurm does; returns the number of processes.

    `steps`: only to those that srun started. That is how --signal does it, while scancel means all.
    """
    count = 0
    wanted = {f"SLURM_NOTES={folder / 'notes'}".encode(), *([b"SLURM_STEP_ID=0"] if steps else [])}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted <= set((process / "environ").read_bytes().split(b"\0")):
                os.kill(int(process.name), number)
                count += 1
    return count

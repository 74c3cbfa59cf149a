from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from pipelines.machine.processes import open_files, own_memory, tree_cpu_seconds

BUSY = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_cpu_time_counts_processes_below_this_one_while_they_live() -> None:
    before = tree_cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert tree_cpu_seconds() >= before + 0.25
        child.communicate(b"\n")
    assert tree_cpu_seconds() < before + 0.25  # the child is gone, and its time with it


def test_memory_of_its_own_and_open_files() -> None:
    before, files = own_memory(), open_files(os.getpid())
    # Mapped anew: NumPy may be given memory that this process has already.
    block = mmap.mmap(-1, 32 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    assert own_memory() - before == pytest.approx(len(block), rel=0.1)
    assert own_memory(os.getpid()) == pytest.approx(own_memory(), rel=0.1)
    with open(os.devnull, "rb"):  # noqa: PTH123
        assert open_files(os.getpid()) == files + 1
    assert open_files(os.getpid()) == files


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(FileNotFoundError):
        own_memory(child.pid)
    with pytest.raises(FileNotFoundError):
        open_files(child.pid)

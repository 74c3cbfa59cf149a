from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import EnvironmentProblem
from pipelines.workers.arena import Arena

ROOT = Path(__file__).resolve().parents[3]


def resident_mib() -> float:
    """Shared memory of this process that is in use."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no RssShmem")


def test_slots_do_not_overlap_and_hold_what_is_written() -> None:
    arena = Arena(3, 5000)
    assert arena.slot_bytes == 2 * mmap.PAGESIZE
    for number in range(3):
        assert arena.slot(number).shape == (arena.slot_bytes,)
        arena.slot(number)[:] = number + 1
    arena.generation = 2**40
    assert [set(arena.slot(number).tolist()) for number in range(3)] == [{1}, {2}, {3}]
    assert arena.generation == 2**40


def test_another_process_sees_the_same_bytes() -> None:
    arena = Arena(2, 4096)
    code = (
        "from pipelines.workers.arena import Arena\n"
        f"arena = Arena(2, 4096, {arena.descriptor})\n"
        "arena.slot(1)[:] = arena.slot(0)[::-1]\n"
        "assert arena.generation == 7\n"
    )
    arena.generation = 7
    arena.slot(0)[:] = np.arange(4096, dtype=np.uint16).astype(np.uint8)
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[arena.descriptor],
        check=True,
    )
    assert np.array_equal(arena.slot(1), arena.slot(0)[::-1])


def test_only_what_is_written_takes_memory_and_large_clips_give_it_back() -> None:
    before = resident_mib()
    arena = Arena(1000, 2**30)  # 1 TB of addresses
    assert resident_mib() - before < 1
    arena.slot(999)[: 100 * 2**20] = 1
    assert 99 < resident_mib() - before < 102
    arena.trim(999, 100 * 2**20)
    assert 15 < resident_mib() - before < 18
    assert arena.slot(999)[0] == 1
    arena.slot(5)[: 10 * 2**20] = 1
    arena.trim(5, 10 * 2**20)
    assert 25 < resident_mib() - before < 28  # usual clips keep their memory: nothing to fault in again


def test_memory_that_is_not_to_be_had_is_one_clear_error() -> None:
    with pytest.raises(
        EnvironmentProblem,
        match=r"^no shared memory for 1000000000 clips of up to 1048576.0 MiB \(.+\); choose a smaller "
        "loader.batch_size or loader.prefetch, or leave out the videos with the largest frames: "
        "r3d-fast data index --max-pixels$",
    ):
        Arena(10**9, 2**40)


def test_arena_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        arena = Arena(2, 4096)
        view = arena.slot(0)
        arena.close()
        arena.close()
        view[:] = 3  # held views stay valid
        del arena, view
    assert len(os.listdir("/proc/self/fd")) == before

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crashing import CRASHES, HANGS, RAISES, SPINS, CrashingSource

from pipelines.errors import EnvironmentProblem
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import LeftOut
from pipelines.workers.pool import WorkerPool
from pipelines.workers.worker import Reply, Task


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(64, 8)
    yield arena
    arena.close()


def pool_of(arena: Arena, workers: int, timeout_seconds: float = 30.0, bad_start: bool = False) -> WorkerPool:
    return WorkerPool(CrashingSource(bad_start), arena, workers=workers, timeout_seconds=timeout_seconds)


def do(pool: WorkerPool, arena: Arena, positions: list[int], first: int = 1) -> dict[int, Reply]:
    """The replies of a task for each position, by position; the tasks' slots are 0, 1, ..."""
    for slot, position in enumerate(positions):
        pool.submit(Task(first + slot, arena.generation, 0, (position,), (slot,)))
    replies: list[Reply] = []
    while len(replies) < len(positions):
        replies += pool.collect(block=True)
    assert not pool.busy
    return {positions[reply.number - first]: reply for reply in replies}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_task_is_answered_and_written_where_it_belongs(arena: Arena, workers: int) -> None:
    pool = pool_of(arena, workers)
    positions = list(range(100, 160))
    replies = do(pool, arena, positions)
    assert len(pool.pids) == workers
    pool.close()
    assert pool.pids == []
    assert sorted(replies) == positions
    assert all(reply.samples[0].video_id == position for position, reply in replies.items())
    assert [int(arena.slot(k)[:8].view(np.int64)[0]) for k in range(60)] == positions


def test_work_is_shared_out(arena: Arena) -> None:
    pool = pool_of(arena, 2)
    do(pool, arena, list(range(60)))
    pids = pool.pids
    used = [sum(int(part) for part in Path(f"/proc/{pid}/stat").read_text().split()[13:15]) for pid in pids]
    pool.close()
    assert min(used) > 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_task_that_kills_its_process_thrice_is_given_up_and_no_other(
    arena: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    source = CrashingSource()
    pool = WorkerPool(source, arena, workers=1, timeout_seconds=30.0)
    with caplog.at_level(logging.WARNING, "pipelines.workers.pool"):
        replies = do(pool, arena, [1, 2, CRASHES, 3, 4])
    pool.close()
    assert [replies[k].samples[0].is_real for k in (1, 2, 3, 4)] == [True] * 4
    (bad,) = replies[CRASHES].samples
    assert not bad.is_real
    what = "the process that read it was ended by SIGSEGV, three times"
    assert bad.reason == f"/videos/{CRASHES}.avi: crashes the decoder: {what}"
    assert [record.getMessage() for record in caplog.records] == [
        f"a decoding process was ended by SIGSEGV with /videos/{CRASHES}.avi: another one makes its clips again"
    ] * 3
    assert source.left_out == [LeftOut(CRASHES, f"crashes the decoder: {what}")]


@pytest.mark.parametrize(("position", "waits"), [(HANGS, True), (SPINS, False)], ids=["waits", "spins"])
def test_task_that_hangs_thrice_is_given_up_and_left_out_if_it_would_hang_again(
    arena: Arena, position: int, waits: bool
) -> None:
    source = CrashingSource()
    pool = WorkerPool(source, arena, workers=2, timeout_seconds=1.0)
    replies = do(pool, arena, [1, position, 2, 3])
    pool.close()
    assert [replies[k].samples[0].is_real for k in (1, 2, 3)] == [True] * 3
    what = "gave no clip for 1 s and was ended" + " while it waited for data" * waits
    reason = f"hangs the decoder: the process that read it {what}, three times"
    assert replies[position].samples[0].reason == f"/videos/{position}.avi: {reason}"
    assert source.left_out == ([] if waits else [LeftOut(position, reason)])


@pytest.mark.parametrize("workers", [0, 2])
def test_error_that_is_no_bad_clip_ends_it_with_its_reason(arena: Arena, workers: int) -> None:
    pool = pool_of(arena, workers)
    with pytest.raises(
        EnvironmentProblem,
        match=r"^decoding failed: MemoryError: no room; to see where it happens, set loader.workers=0$",
    ) as caught:
        do(pool, arena, [RAISES])
    pool.close()
    assert "in load" in str(caught.value.__cause__)  # the traceback of the other process


def test_process_that_cannot_start_is_an_error_at_once(arena: Arena, capfd: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(arena, 1, bad_start=True)
    with pytest.raises(
        EnvironmentProblem, match=r"^a decoding process ended with exit code 1 while it started; see its output above; "
    ):
        do(pool, arena, [1])
    pool.close()
    assert "ImportError: no module named 'what_it_needs'" in capfd.readouterr().err


def test_idle_workers_that_are_killed_are_replaced(arena: Arena) -> None:
    pool = pool_of(arena, 2)
    do(pool, arena, [1, 2, 3, 4])
    old = pool.pids
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert sorted(do(pool, arena, [5, 6, 7], first=10)) == [5, 6, 7]
    assert not set(old) & set(pool.pids)
    pool.close()


def test_cancelled_tasks_are_not_done(arena: Arena) -> None:
    pool = pool_of(arena, 1)
    do(pool, arena, [1])
    os.kill(pool.pids[0], signal.SIGSTOP)
    for k in range(20):
        pool.submit(Task(100 + k, arena.generation, 0, (500 + k,), (k,)))
    arena.generation += 1  # as cancel does, before the worker goes on
    os.kill(pool.pids[0], signal.SIGCONT)
    pool.cancel()
    assert not pool.busy
    assert int(arena.slot(5)[:8].view(np.int64)[0]) == 0
    assert sorted(do(pool, arena, [7], first=200)) == [7]
    pool.close()


def test_ctrl_c_is_left_to_the_parent(arena: Arena) -> None:
    pool = pool_of(arena, 1)
    do(pool, arena, [1])
    os.kill(pool.pids[0], signal.SIGINT)
    assert os.getpgid(pool.pids[0]) != os.getpgid(0)
    before = pool.pids
    assert sorted(do(pool, arena, [2, 3], first=5)) == [2, 3]
    assert pool.pids == before
    pool.close()


def test_pool_that_is_dropped_ends_its_processes(arena: Arena) -> None:
    pool = pool_of(arena, 1)
    do(pool, arena, [1])
    (pid,) = pool.pids
    del pool
    assert not Path(f"/proc/{pid}").exists()


def test_more_workers_than_the_limit_of_open_files_allows_is_a_clear_error() -> None:
    code = (
        "import os\n"
        "from crashing import CrashingSource\n"
        "from pipelines.workers.arena import Arena\n"
        "from pipelines.errors import EnvironmentProblem\n"
        "from pipelines.workers.pool import WorkerPool\n"
        "arena, before = Arena(64, 8), len(os.listdir('/proc/self/fd'))\n"
        "try:\n"
        "    WorkerPool(CrashingSource(), arena, workers=64, timeout_seconds=30)\n"
        "except EnvironmentProblem as error:\n"
        "    print(error)\n"
        "assert len(os.listdir('/proc/self/fd')) == before\n"
    )
    repo = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repo / "tests" / "support" / "videos"), str(repo)])}
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 32 && exec "$@"', "sh", sys.executable, "-W", "error", "-c", code],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"only \d+ decoding processes can be started \(Too many open files\); choose fewer loader.workers, "
        r"or raise the limit of open files or processes \(ulimit -n, ulimit -u\)\n",
        done.stdout,
    )

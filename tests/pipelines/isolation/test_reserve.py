from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import write_stamped_video
from crashing import HANGS, CrashingSource
from odd_work import OddWork
from waiting import wait_until

from pipelines.isolation.frames import DistantFrames, Wanted
from pipelines.isolation.jobs import CRASHES, Lost, do_apart
from pipelines.isolation.reserve import Reserve, reserve
from pipelines.workers.arena import Arena
from pipelines.workers.pool import WorkerPool
from pipelines.workers.worker import Task


@pytest.fixture
def kept() -> Iterator[Reserve]:
    kept = reserve(1)
    yield kept
    kept.close()


def pids(kept: Reserve) -> list[int]:
    return [waiting.process.pid for waiting in kept._all]


def test_a_process_does_one_work_after_the_other(kept: Reserve, tmp_path: Path) -> None:
    before = pids(kept)
    video = write_stamped_video(tmp_path / "v.avi", num_frames=7)
    for _ in range(2):
        assert list(do_apart(OddWork(str(tmp_path)), ["a", "b"], workers=1)) == ["A", "B"]
        with DistantFrames(str(video)) as frames:
            assert [frame.number for frame in frames.frames(Wanted())] == list(range(7))
    assert pids(kept) == before


def test_one_that_was_killed_while_it_waited_is_replaced(kept: Reserve, tmp_path: Path) -> None:
    (pid,) = pids(kept)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: kept._all[0].process.poll() is not None)
    assert list(do_apart(OddWork(str(tmp_path)), ["a"], workers=1)) == ["A"]
    assert pid not in pids(kept)


def test_work_that_kills_it_is_lost_and_it_is_replaced(kept: Reserve, tmp_path: Path) -> None:
    (pid,) = pids(kept)
    found = list(do_apart(OddWork(str(tmp_path)), ["dies 1", "a"], workers=1))
    assert found == [Lost(CRASHES, "the process that read it was ended by SIGKILL, twice"), "A"]
    assert len(pids(kept)) == 1
    assert pid not in pids(kept)


def test_one_that_still_works_when_nobody_wants_its_jobs_any_more_is_replaced(kept: Reserve, tmp_path: Path) -> None:
    (pid,) = pids(kept)
    results = do_apart(OddWork(str(tmp_path)), ["a", "blocks"], workers=1)
    assert next(results) == "A"
    results.close()  # type: ignore[attr-defined]
    (other,) = pids(kept)
    assert other != pid
    assert not Path(f"/proc/{pid}").exists()
    assert list(do_apart(OddWork(str(tmp_path)), ["a"], workers=1)) == ["A"]
    assert pids(kept) == [other]


def test_a_pool_of_a_loader_gives_back_what_is_idle_and_replaces_what_still_works(kept: Reserve) -> None:
    (pid,) = pids(kept)
    arena = Arena(64, 1)
    for is_idle in (True, False):
        pool = WorkerPool(CrashingSource(), arena, workers=1, timeout_seconds=1000.0)
        pool.submit(Task(1, arena.generation, 0, (0,), (0,)))
        assert [reply.number for reply in pool.collect(block=True)] == [1]
        assert pool.pids == [pid]
        if not is_idle:
            pool.submit(Task(2, arena.generation, 0, (HANGS,), (0,)))
        pool.close()
        assert (pids(kept) == [pid]) == is_idle
    arena.close()
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_is_lent_goes_on_when_nobody_keeps_the_reserve(tmp_path: Path) -> None:
    video = write_stamped_video(tmp_path / "v.avi", num_frames=7)
    kept = reserve(1)
    (pid,) = pids(kept)
    with DistantFrames(str(video)) as frames:
        assert list(kept._lent) == [pid]
        del kept
        assert [frame.number for frame in frames.frames(Wanted())] == list(range(7))
    assert not Path(f"/proc/{pid}").exists()


def test_it_ends_its_processes_when_nobody_keeps_it() -> None:
    kept = Reserve(2)
    running = pids(kept)
    assert all(Path(f"/proc/{pid}").exists() for pid in running)
    del kept
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)


def test_after_it_is_closed_work_gets_processes_of_its_own(kept: Reserve, tmp_path: Path) -> None:
    kept.close()
    assert list(do_apart(OddWork(str(tmp_path)), ["a"], workers=1)) == ["A"]
    assert pids(kept) == []


def test_there_is_one_for_all(kept: Reserve) -> None:
    assert reserve(5) is kept
    kept.close()
    other = reserve(1)
    assert other is not kept
    other.close()

from __future__ import annotations

import os
from pathlib import Path

import pytest
from odd_work import OddWork, StartOnce

from pipelines.errors import EnvironmentProblem
from pipelines.isolation.jobs import CRASHES, HANGS, Lost, do_apart

KILLED = Lost(CRASHES, "the process that read it was ended by SIGKILL, twice")
HUNG = Lost(HANGS, "nothing was read or decoded for 2 s, and its process was ended")


@pytest.mark.parametrize("workers", [1, 3])
def test_jobs_that_end_or_block_their_processes_are_lost_and_all_others_are_done(tmp_path: Path, workers: int) -> None:
    jobs = ["a", "dies 1", "b", "exits 7", "c", "dies 2", "blocks", "d", "e"]
    found = list(do_apart(OddWork(str(tmp_path)), jobs, workers=workers, stall_seconds=2.0))
    exited = Lost(CRASHES, "the process that read it ended with exit code 7, twice")
    assert found == ["A", KILLED, "B", exited, "C", KILLED, HUNG, "D", "E"]


def test_a_job_whose_process_was_killed_once_is_done_again(tmp_path: Path) -> None:
    jobs = ["a", "dies-once 1", "b", "dies-once 2"]
    assert list(do_apart(OddWork(str(tmp_path)), jobs, workers=1)) == [job.upper() for job in jobs]


def test_a_process_that_tells_or_reads_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "slow").write_bytes(bytes(1000))
    told: list[tuple[str, float]] = []
    jobs = ["tells 12", "reads 12", "blocks"]
    work = OddWork(str(tmp_path))
    found = list(do_apart(work, jobs, workers=1, stall_seconds=2.0, watch=lambda *now: told.append(now)))
    assert found == ["TELLS 12", "READS 12", HUNG]
    assert told == [("tells 12", number / 12) for number in range(12)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_is_killed_while_it_starts_is_started_again(tmp_path: Path, workers: int) -> None:
    assert list(do_apart(StartOnce(tmp_path, 3), ["a", "b"], workers=workers)) == ["A", "B"]
    assert len(list(tmp_path.iterdir())) >= 3


def test_a_process_that_has_worked_is_replaced_with_as_many_tries_as_a_first_one(tmp_path: Path) -> None:
    marks = [tmp_path / str(number) for number in range(4)]
    for mark in marks:  # so many that the first process starts
        mark.touch()

    def forget(job: str, share: float) -> None:
        for mark in marks:
            mark.unlink()

    found = do_apart(StartOnce(tmp_path, 4), ["tells 1", "dies-once 1"], workers=1, watch=forget)
    assert list(found) == ["TELLS 1", "DIES-ONCE 1"]
    assert len(list(tmp_path.iterdir())) == 4  # the mark of the job, and of three processes that did not start


def test_processes_that_never_start_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="was ended by SIGKILL while it started, 4 times in a row"):
        list(do_apart(StartOnce(tmp_path, 99), ["a", "b"], workers=1))
    assert len(list(tmp_path.iterdir())) == 4


def test_an_error_of_the_work_itself_is_raised_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="KeyError: '3'"):
        list(do_apart(OddWork(str(tmp_path)), ["a", "fails 3"], workers=1))


def test_without_workers_this_process_does_the_work(tmp_path: Path) -> None:
    before = children()
    results = do_apart(OddWork(str(tmp_path)), ["a", "b"], workers=0)
    assert next(results) == "A"
    assert children() == before
    assert list(results) == ["B"]


def test_the_processes_end_with_the_iterator(tmp_path: Path) -> None:
    before = children()
    results = do_apart(OddWork(str(tmp_path)), ["a", "blocks", "blocks"], workers=3)
    assert next(results) == "A"
    assert len(children() - before) == 3
    results.close()  # type: ignore[attr-defined]
    assert children() == before


def children() -> set[int]:
    """The ids of the processes that this one has started and that are still there."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}

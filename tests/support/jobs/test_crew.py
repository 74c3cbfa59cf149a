"""The crew says of each task what became of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import crew


def job(task: str, say: Callable[[str], None]) -> str:
    say(f"doing {task}")
    print("noise")
    if task == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "hangs":
        time.sleep(60)
    if task == "raises":
        raise ValueError("no")
    return task.upper()


def test_each_task_has_an_outcome_though_some_crash_or_hang() -> None:
    tasks = ["a", "dies", "b", "hangs", "raises", "c"]
    outcomes = {outcome.task: outcome for outcome in crew.run(job, tasks, processes=2, timeout_seconds=3)}
    assert set(outcomes) == set(tasks)
    assert {task: outcomes[task].result for task in "abc"} == {"a": "A", "b": "B", "c": "C"}
    assert outcomes["dies"].failure == "the process died of signal 11"
    assert outcomes["hangs"].failure == "hung for 3 s"
    assert outcomes["raises"].failure == "ValueError: no"
    assert all(outcome.stage == f"doing {outcome.task}" for outcome in outcomes.values())


def test_tasks_are_asked_for_as_they_are_given_out() -> None:
    asked: list[str] = []

    def tasks() -> Iterator[str]:
        for number in range(9):
            asked.append(f"{number}")
            yield asked[-1]

    outcomes = crew.run(job, tasks(), processes=1, timeout_seconds=60)
    assert next(outcomes).result == "0"
    assert len(asked) <= 3
    assert [outcome.result for outcome in outcomes] == [*"12345678"]

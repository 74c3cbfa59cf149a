"""Runs jobs in processes that may crash or hang, and says which did."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any, NamedTuple

# A new process imports what the job needs; on a busy machine that takes its time.
_START_SECONDS = 120.0
_END = object()  # after the last task

Job = Callable[[Any, Callable[[str], None]], Any]


class Outcome(NamedTuple):
    """What became of a task: its result, or in words why there is none, and what the job last said it was doing."""

    task: Any
    result: Any
    failure: str  # "" where there is a result
    stage: str


@dataclass
class _Member:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    task: Any = None
    stage: str = ""
    deadline: float = 0.0


def run(job: Job, tasks: Iterable[Any], *, processes: int, timeout_seconds: float) -> Iterator[Outcome]:
    """The outcome of `job(task, say)` for each task, in the order in which they end.

    `job` runs in another process, which a task may bring down: then the next task gets a new one. It calls `say(stage)`
    with what it is about to do. A task that says nothing for `timeout_seconds` is ended. What the job prints, or what
    the libraries under it print, is thrown away. Tasks are asked for as they are given out, one ahead.
    """
    tasks = iter(tasks)
    following = next(tasks, _END)
    crew: list[_Member] = []
    try:
        while following is not _END or any(member.task is not None for member in crew):
            while len(crew) < processes and following is not _END:
                crew.append(_start(job))
            for member in crew:
                if member.task is None and following is not _END:
                    _give(member, following, timeout_seconds)
                    following = next(tasks, _END)
            busy = [member for member in crew if member.task is not None]
            wait([member.pipe for member in busy], timeout=1.0)
            for member in busy:
                outcome = _news(member, timeout_seconds)
                if outcome is None:
                    continue
                if outcome.failure and not member.process.is_alive():
                    crew.remove(member)
                yield outcome
    finally:
        for member in crew:
            member.process.kill()
            member.process.join()


def _start(job: Job) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Member(process, ours)


def _give(member: _Member, task: Any, timeout_seconds: float) -> None:
    member.task, member.stage, member.deadline = task, "", monotonic() + timeout_seconds + _START_SECONDS
    member.pipe.send(task)


def _news(member: _Member, timeout_seconds: float) -> Outcome | None:
    """The outcome of the member's task, None while it is at work."""
    try:
        while member.pipe.poll():
            kind, content = member.pipe.recv()
            if kind == "stage":
                member.stage, member.deadline = content, monotonic() + timeout_seconds
                continue
            outcome = Outcome(member.task, content, "", member.stage)
            if kind == "failure":
                outcome = Outcome(member.task, None, content, member.stage)
            member.task = None
            return outcome
    except (EOFError, ConnectionError):
        member.process.join()
        code = member.process.exitcode or 0
        return Outcome(member.task, None, f"the process died of signal {-code}", member.stage)
    if monotonic() > member.deadline:
        member.process.kill()
        member.process.join()
        return Outcome(member.task, None, f"hung for {timeout_seconds:g} s", member.stage)
    return None


def _serve(job: Job, pipe: Connection) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(("stage", ""))  # from here on the time of the task counts, and no longer that of the start
        try:
            pipe.send(("result", job(task, lambda stage: pipe.send(("stage", stage)))))
        except Exception as error:
            pipe.send(("failure", f"{type(error).__name__}: {error}"))

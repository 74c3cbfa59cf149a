"""The process side of isolated work: takes jobs from a socket, does them one after the other, and sends each result."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol, TypeVar

from pipelines.isolation.rights import give_up_rights

Job = TypeVar("Job", contravariant=True)
Result = TypeVar("Result", covariant=True)
Tell = Callable[[float], None]  # called with the share of a job that is done, 0 to 1


class Work(Protocol[Job, Result]):
    """What is done with each job. It is pickled, like the jobs and their results.

    It calls `tell` now and then in a long job: a process that says nothing and reads nothing counts as hanging.
    """

    def __call__(self, job: Job, tell: Tell) -> Result:
        """The result of `job`."""


class Ready(NamedTuple):
    """What a process sends first: it has imported all that it needs."""


class Progress(NamedTuple):
    """What a process sends while it does a long job: the share of it that is done, 0 to 1."""

    share: float


class Done(NamedTuple):
    """What a process sends after each job."""

    result: Any


class Failure(NamedTuple):
    """What a process sends in place of a result: the traceback of an error that no job may raise."""

    text: str


Message = Ready | Progress | Done | Failure


def main(descriptor: int) -> None:
    """Do the jobs that the parent sends from the other end of the socket `descriptor`, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its processes
    with Connection(descriptor) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        work: Work[Any, Any] = connection.recv()
        give_up_rights()
        connection.send(Ready())
        while True:
            for job in connection.recv():
                connection.send(_message(work, job, connection))


def _message(work: Work[Any, Any], job: object, connection: Connection) -> Done | Failure:
    try:
        return Done(work(job, lambda share: connection.send(Progress(share))))
    except Exception:
        return Failure(traceback.format_exc())

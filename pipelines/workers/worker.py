"""A worker process: takes tasks from a socket, lets its source write the clips into shared memory, and replies."""

from __future__ import annotations

import signal
import traceback
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter

from pipelines.errors import ExitCode
from pipelines.isolation.rights import give_up_rights
from pipelines.plain_text import say
from pipelines.stream import Sample
from pipelines.video.decoder import ReadStatistics
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import ClipSource, LeftOut


@dataclass(frozen=True)
class Task:
    """The clips to make in one decode pass: those at `positions` of `epoch`, each written to its slot.

    With `encoded` they are for DALI to decode, where DALI can. `generation` is that of the arena when the task was
    given out; the task is skipped if the arena has a newer one.
    """

    number: int
    generation: int
    epoch: int
    positions: tuple[int, ...]
    slots: tuple[int, ...]
    encoded: bool = False


@dataclass(frozen=True)
class Reply:
    """The result of a task: the samples of its clips, and what they cost.

    There are no samples if the task was cancelled. `error` is the traceback of an error that is not about a video.
    """

    number: int
    samples: list[Sample]
    statistics: ReadStatistics
    seconds: float
    error: str = ""


def perform(task: Task, source: ClipSource, arena: Arena) -> Reply:
    """Make the clips of `task` and give the reply."""
    begin = perf_counter()
    samples: list[Sample] = []
    error = ""
    if task.generation == arena.generation:
        try:
            slots = [arena.slot(slot) for slot in task.slots]
            samples = source.load(task.epoch, task.positions, slots, encoded=task.encoded)
        except Exception:
            error = traceback.format_exc()
    return Reply(task.number, samples, source.statistics(), perf_counter() - begin, error)


def main(descriptor: int, memory: int) -> None:
    """Do the tasks of the parent at the other end of the socket `descriptor`, until that is closed.

    `memory` is the descriptor of the arena's memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent finishes its step and then ends its workers
    with Connection(descriptor) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _serve(connection, memory)
        except (EOFError, ConnectionError):
            raise
        except Exception:  # said before the socket is closed, which ends this process at once
            say(*traceback.format_exc().splitlines())
            raise SystemExit(ExitCode.INTERNAL) from None


def _serve(connection: Connection, memory: int) -> None:
    source, slots, slot_bytes = connection.recv()
    with closing(Arena(slots, slot_bytes, memory)) as arena:
        give_up_rights()
        connection.send(None)
        while True:
            task: Task | LeftOut = connection.recv()
            if isinstance(task, LeftOut):
                source.leave_out(task)
            else:
                connection.send(perform(task, source, arena))

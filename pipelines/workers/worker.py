"""A worker process: takes tasks from a socket, lets its source write the clips into shared memory, and replies.

It is started as a separate program instead of by multiprocessing, which would run the user's script again. So a script
needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter

from pipelines.errors import ExitCode
from pipelines.stream import Sample
from pipelines.video.decoder import ReadStatistics
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import ClipSource


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


def main(descriptor: int) -> None:
    """Do the tasks of the parent, which is at the other end of the socket `descriptor`, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent finishes its step and then ends its workers
    connection = Connection(descriptor)
    _end_with_parent(descriptor)
    try:
        source, slots, slot_bytes, memory = connection.recv()
        arena = Arena(slots, slot_bytes, memory)
        connection.send(None)
        while True:
            connection.send(perform(connection.recv(), source, arena))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent(descriptor: int) -> None:
    """End this process when the parent ends, even during a decode that never returns."""
    poll = select.poll()
    poll.register(descriptor, 0)  # with mask 0, poll reports only that the other end was closed

    def watch() -> None:
        poll.poll()
        os._exit(ExitCode.INTERNAL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()

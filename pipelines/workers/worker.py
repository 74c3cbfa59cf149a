"""A decoding process: takes tasks from a socket, has its source write clips into shared memory, says what it wrote.

It is started as a program of its own, not by multiprocessing: the user's script is not run again in it, so a script
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
    """Clips to make in one decode pass: those at `positions` of `epoch`, each into its slot.

    `encoded`: for DALI to decode, if it can.
    """

    number: int
    generation: int
    epoch: int
    positions: tuple[int, ...]
    slots: tuple[int, ...]
    encoded: bool = False


@dataclass(frozen=True)
class Reply:
    """What became of a task: its samples, none if it was stale, or the traceback of an error that is no bad clip."""

    number: int
    samples: list[Sample]
    statistics: ReadStatistics
    seconds: float
    error: str = ""


def perform(task: Task, source: ClipSource, arena: Arena) -> Reply:
    """The reply to `task`, its clips written."""
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
    """Serve the parent at the other end of the socket `descriptor` until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it finishes its step and then ends us
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
    """End this process when the parent is, even amid a decode that does not come back."""
    poll = select.poll()
    poll.register(descriptor, 0)  # reports only that the other end is closed

    def watch() -> None:
        poll.poll()
        os._exit(ExitCode.INTERNAL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()

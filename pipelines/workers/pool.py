"""WorkerPool: gives tasks to the worker processes, collects their replies, and replaces workers that die or hang.

A task belongs to one worker until that worker has replied. If a worker dies or hangs, another one is started and does
its tasks again, with the same slots. A task with which a worker dies or hangs three times is given up as a bad clip,
and its video is not read any more: the source enters it among the known bad ones. A video of which a worker waited for
data, as from a server that does not answer, is only given up this time.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import monotonic

from pipelines.errors import EnvironmentProblem
from pipelines.isolation.jobs import CRASHES, HANGS
from pipelines.isolation.reserve import begin, release
from pipelines.machine.processes import is_at_work, wait_for_end
from pipelines.workers.arena import Arena
from pipelines.workers.clip_source import ClipSource, LeftOut
from pipelines.workers.worker import Reply, Task, perform

_MAX_CRASHES = 3
_MAX_STARTS = 3  # how often in a row a worker may be killed while it starts
_START_SECONDS = 60.0  # a new worker may take this much longer for its first clip, to import modules on a busy machine
_MAIN = "pipelines.workers.worker.main"
_log = logging.getLogger(__name__)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    tasks: deque[Task] = field(default_factory=deque)
    since: float = field(default_factory=monotonic)  # when it last sent something, or got a task while it had none
    ready: bool = False


class WorkerPool:
    """Worker processes that make the clips of `source` in `arena`; with 0 workers, `collect` makes them itself."""

    def __init__(self, source: ClipSource, arena: Arena, *, workers: int, timeout_seconds: float) -> None:
        """Start `workers` processes. One that sends nothing for `timeout_seconds` while it has a task is replaced.

        Raises EnvironmentProblem if the system does not allow so many processes.
        """
        self._source, self._arena, self._timeout = source, arena, timeout_seconds
        self._workers: list[_Worker] = []
        self._queue: deque[Task] = deque()  # the tasks for this process, if there are no workers
        self._crashes: dict[int, int] = {}  # number of a task -> how many workers died or hung with it
        self._failed_starts = 0
        self._has_worked = False
        self._end = weakref.finalize(self, _end_all, self._workers, os.getpid())
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    @property
    def busy(self) -> bool:
        """Whether there are tasks without a reply."""
        return bool(self._queue) or any(worker.tasks for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give `task` to the worker that has the fewest tasks."""
        if not self._workers:
            self._queue.append(task)
            return
        worker = min(self._workers, key=lambda worker: len(worker.tasks))
        if not worker.tasks:
            worker.since = monotonic()
        worker.tasks.append(task)
        self._send(worker, task)

    def collect(self, *, block: bool) -> list[Reply]:
        """The replies that have arrived. With `block`, wait until there is at least one, if any task has no reply yet.

        Raises EnvironmentProblem if workers keep dying while they start, or if a worker fails with an error that is
        not about a video.
        """
        replies: list[Reply] = []
        if not self._workers and self._queue and block:
            replies.append(perform(self._queue.popleft(), self._source, self._arena))
        while self._workers:
            for connection in wait([worker.connection for worker in self._workers], self._patience(block)):
                worker = next(worker for worker in self._workers if worker.connection is connection)
                replies += self._receive(worker)
            replies += self._end_hanging()
            if replies or not block or not self.busy:
                break
        for reply in replies:
            if reply.error:
                reason = reply.error.strip().splitlines()[-1]
                raise EnvironmentProblem(
                    f"decoding failed: {reason}; to see where it happens, set loader.workers=0"
                ) from RuntimeError(reply.error)
        return replies

    def cancel(self) -> None:
        """Cancel all tasks, and wait until no worker writes any more."""
        self._arena.generation += 1
        self._queue.clear()
        while self.busy:
            self.collect(block=True)

    def close(self) -> None:
        """End the processes at once."""
        self._end()

    def _patience(self, block: bool) -> float:
        """The seconds to wait for a reply: until the first worker counts as hanging; 0 if not `block`."""
        if not block:
            return 0.0
        due = [self._deadline(worker) for worker in self._workers if worker.tasks]
        return max(0.0, min(due, default=monotonic()) - monotonic())

    def _deadline(self, worker: _Worker) -> float:
        """The time at which a worker that has a task counts as hanging."""
        return worker.since + self._timeout + (0.0 if worker.ready else _START_SECONDS)

    def _receive(self, worker: _Worker) -> list[Reply]:
        """The replies that `worker` has sent. If it has died, it is replaced."""
        replies = []
        try:
            while worker.connection.poll():
                reply = worker.connection.recv()
                worker.since = monotonic()
                if not worker.ready:
                    worker.ready, self._has_worked, self._failed_starts = True, True, 0
                    continue
                task = worker.tasks.popleft()
                assert reply.number == task.number
                self._crashes.pop(task.number, None)
                replies.append(reply)
        except (EOFError, OSError):
            replies += self._replace(worker)
        return replies

    def _end_hanging(self) -> list[Reply]:
        """Replace the workers that hang. Gives the replies of tasks that are given up."""
        replies = []
        for worker in list(self._workers):
            if worker.tasks and monotonic() > self._deadline(worker):
                waits = not is_at_work(worker.process.pid)
                what = f"gave no clip for {self._timeout:g} s and was ended"
                replies += self._replace(worker, what + (" while it waited for data" if waits else ""), lasts=not waits)
        return replies

    def _replace(self, worker: _Worker, hung: str = "", *, lasts: bool = True) -> list[Reply]:
        """Start another worker with the tasks of `worker`, and give the replies of tasks that are given up.

        `hung` says what happened to `worker` if it did not end by itself, as the verb of a sentence; `lasts`, whether
        that would happen again.
        """
        ended = _end(worker, at_once=bool(hung))
        what = hung or ended
        place = self._workers.index(worker)
        del self._workers[place]
        if not worker.ready:
            self._failed_starts += 1
            was_killed = (worker.process.returncode or 0) < 0
            if self._failed_starts > _MAX_STARTS or not (was_killed or self._has_worked):
                raise EnvironmentProblem(
                    f"a decoding process {what} while it started; see its output above; to see where it happens, set "
                    "loader.workers=0"
                )
        replies = []
        tasks = list(worker.tasks)
        where = ""
        if tasks and worker.ready:
            first = tasks[0]
            where = f" with {self._source.path_of(first.epoch, first.positions[0])}"
            self._crashes[first.number] = self._crashes.get(first.number, 0) + 1
            if self._crashes[first.number] >= _MAX_CRASHES:
                replies.append(self._give_up(tasks.pop(0), CRASHES if not hung else HANGS, what, lasts=lasts))
        _log.warning("a decoding process %s%s: another one makes its clips again", what, where)
        new = self._start()
        self._workers.insert(place, new)
        for task in tasks:
            new.tasks.append(task)
            self._send(new, task)
        return replies

    def _give_up(self, task: Task, reason: str, what: str, *, lasts: bool) -> Reply:
        """The reply with black clips for `task`; if its fault `lasts`, its video is left out from now on."""
        del self._crashes[task.number]
        slots = [self._arena.slot(slot) for slot in task.slots]
        detail = f"the process that read it {what}, three times"
        first = task.epoch, task.positions[0]
        path = self._source.path_of(*first)
        samples = self._source.failed(task.epoch, task.positions, slots, f"{path}: {reason}: {detail}")
        if lasts:
            left_out = self._source.quarantine(*first, reason, detail)
            for worker in self._workers:
                self._send(worker, left_out)
        return Reply(task.number, samples, self._source.statistics(), 0.0)

    def _send(self, worker: _Worker, what: Task | LeftOut) -> None:
        with suppress(OSError):  # the worker is dead; `collect` will notice and replace it
            worker.connection.send(what)

    def _start(self) -> _Worker:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                process = begin(_MAIN, theirs.fileno(), self._arena.descriptor)
        except OSError as error:
            raise EnvironmentProblem(
                f"only {len(self._workers)} decoding processes can be started ({error.strerror}); choose fewer "
                "loader.workers, or raise the limit of open files or processes (ulimit -n, ulimit -u)"
            ) from error
        worker = _Worker(process, Connection(ours.detach()))
        setup = (self._source, self._arena.slots, self._arena.slot_bytes)
        with suppress(OSError):  # as in _send
            worker.connection.send(setup)
        return worker


def _end(worker: _Worker, *, at_once: bool = True) -> str:
    """End `worker`, and tell how it ended, as the verb of a sentence."""
    if not at_once:
        wait_for_end(worker.process)
    worker.connection.close()
    return release(worker.process, is_idle=at_once and worker.ready and not worker.tasks)


def _end_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # this is a fork of the owner, which must not end the owner's workers
        return
    for worker in workers:
        if worker.tasks:
            worker.process.kill()
    for worker in workers:
        _end(worker)
    workers.clear()

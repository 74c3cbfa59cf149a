"""Does jobs in parallel processes. A job with which its process dies or hangs is lost, and the others go on."""

from __future__ import annotations

import math
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from time import monotonic
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from pipelines.errors import EnvironmentProblem
from pipelines.isolation.process import Done, Failure, Message, Progress, Ready, Work
from pipelines.isolation.reserve import begin, release
from pipelines.machine.processes import bytes_read, wait_for_end

STALL_SECONDS = 30.0  # a process that says nothing and reads nothing for so long hangs
CRASHES, HANGS = "crashes the decoder", "hangs the decoder"  # reasons of Lost
_MAIN = "pipelines.isolation.process.main"
_CHUNK = 32  # jobs that a process gets at once
_START_SECONDS = 60.0  # what a process may take to import its modules on a busy machine
_STARTS = 4  # how often a process is started that ends before it is ready: once, and three times again
_TRIES = 2  # how many processes may die with a job: one may have been killed for another reason
_SILENT_WAITS = 100  # how often a process that reads, but says nothing, is waited for again

Job = TypeVar("Job")
Result = TypeVar("Result")


class Lost(NamedTuple):
    """In place of a result: `reason`, CRASHES or HANGS, and in `detail` what happened to the process."""

    reason: str
    detail: str


def do_apart(
    work: Work[Job, Result],
    jobs: Sequence[Job],
    *,
    workers: int,
    stall_seconds: float = STALL_SECONDS,
    watch: Callable[[Job, float], None] | None = None,
) -> Iterator[Result | Lost]:
    """For each of `jobs`, in order, what `work` gives for it in one of `workers` processes.

    A job is Lost if two processes die with it, or if one says nothing and reads nothing for `stall_seconds`. `watch`
    hears how far long jobs are. With 0 workers this process does the work, and what it crashes on ends it. Raises
    EnvironmentProblem where no process can be started, RuntimeError with the traceback where `work` raises an error.
    """
    if not jobs:
        return
    if workers <= 0:
        for job in jobs:
            yield work(job, _ignore if watch is None else partial(watch, job))
        return
    with _Pool(work, jobs, min(workers, len(jobs)), stall_seconds, watch) as pool:
        for number in range(len(jobs)):
            yield pool.result(number)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    start: int  # 1 for the first process in its place, and 1 more for each that ended before it was ready
    jobs: deque[int] = field(default_factory=deque)  # numbers of those that it has no result for yet
    ready: bool = False
    since: float = field(default_factory=monotonic)  # when it last said something, or was last seen to read
    read: int = 0  # bytes, by then
    silent_waits: int = 0

    def may_work_on(self) -> bool:
        """Whether it has read something since it was last asked, as from a slow disk, and not for too long already."""
        before, self.read = self.read, bytes_read(self.process.pid)
        self.silent_waits += 1
        self.since = monotonic()
        return self.read > before and self.silent_waits < _SILENT_WAITS


class _Pool(Generic[Job, Result]):
    """Processes that do `jobs`, and the results that were not asked for yet."""

    def __init__(
        self,
        work: Work[Job, Result],
        jobs: Sequence[Job],
        count: int,
        stall_seconds: float,
        watch: Callable[[Job, float], None] | None,
    ) -> None:
        """Start `count` processes, or as many as the system allows. Raises EnvironmentProblem if that is none."""
        self._work, self._jobs, self._stall, self._watch = work, jobs, stall_seconds, watch
        self._waiting = deque(range(len(jobs)))
        self._chunk = max(1, min(_CHUNK, len(jobs) // (4 * count)))
        self._deaths: dict[int, int] = {}  # number of a job -> how many processes died with it
        self._workers: list[_Worker] = []
        self._results: dict[int, Result | Lost] = {}
        try:
            for _ in range(count):
                self._start(1)
        except OSError as error:
            if not self._workers:
                raise EnvironmentProblem(
                    f"no process can be started ({error.strerror}); raise the limit of processes (ulimit -u) or of "
                    "open files (ulimit -n)"
                ) from error
        except BaseException:
            self._end_all()
            raise

    def __enter__(self) -> _Pool[Job, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all()

    def result(self, number: int) -> Result | Lost:
        """The result of job `number`, once it is there."""
        while number not in self._results:
            due = min(worker.since + self._patience(worker) for worker in self._workers)
            left = None if due == math.inf else max(0.0, due - monotonic())
            there = wait([worker.connection for worker in self._workers], left)
            for connection in there:
                self._receive(next(worker for worker in self._workers if worker.connection is connection))
            if not there:
                self._end_hanging()
        return self._results.pop(number)

    def _patience(self, worker: _Worker) -> float:
        """The seconds for which `worker` may say nothing."""
        if not worker.ready:
            return _START_SECONDS + self._stall
        return self._stall if worker.jobs else math.inf

    def _end_hanging(self) -> None:
        for worker in list(self._workers):
            hangs = monotonic() >= worker.since + self._patience(worker)
            if hangs and not (worker.ready and worker.may_work_on()):
                self._replace(worker, hangs=True)

    def _start(self, start: int) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = begin(_MAIN, theirs.fileno())
            worker = _Worker(process, Connection(ours.detach()), start)
        self._workers.append(worker)
        with suppress(OSError):  # it is dead already, which `_receive` finds
            worker.connection.send(self._work)

    def _give_jobs(self, worker: _Worker) -> None:
        """Give `worker` some of the jobs that wait; one with which a process has died comes alone."""
        while self._waiting and len(worker.jobs) < self._chunk:
            is_suspect = self._waiting[0] in self._deaths
            if is_suspect and worker.jobs:
                break
            worker.jobs.append(self._waiting.popleft())
            if is_suspect:
                break
        if worker.jobs:
            with suppress(OSError):  # as in _start
                worker.connection.send([self._jobs[number] for number in worker.jobs])

    def _receive(self, worker: _Worker) -> None:
        """Take a message of `worker`; where it has died, start another one."""
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, hangs=False)
            return
        worker.since, worker.silent_waits = monotonic(), 0
        match message:
            case Ready():
                worker.ready = True
                self._give_jobs(worker)
            case Progress(share):
                if self._watch is not None:
                    self._watch(self._jobs[worker.jobs[0]], share)
            case Failure(text):
                raise RuntimeError(text)
            case Done(result):
                self._results[worker.jobs.popleft()] = result
                if not worker.jobs:
                    self._give_jobs(worker)

    def _replace(self, worker: _Worker, *, hangs: bool) -> None:
        """End `worker` and start another one, with the jobs that have no result; the first one may be lost."""
        self._workers.remove(worker)
        if not hangs:
            wait_for_end(worker.process)
        worker.connection.close()
        how = release(worker.process, is_idle=False)
        if not worker.ready and worker.start >= _STARTS:
            raise EnvironmentProblem(
                f"a process that reads videos {how} while it started, {_STARTS} times in a row; see its output above, "
                "and whether memory or the number of processes is limited (ulimit -v, ulimit -u)"
            )
        if worker.ready and worker.jobs:
            first = worker.jobs[0]
            self._deaths[first] = self._deaths.get(first, 0) + 1
            if hangs:
                detail = f"nothing was read or decoded for {self._stall:g} s, and its process was ended"
                self._results[worker.jobs.popleft()] = Lost(HANGS, detail)
            elif self._deaths[first] >= _TRIES:
                self._results[worker.jobs.popleft()] = Lost(CRASHES, f"the process that read it {how}, twice")
        self._waiting.extendleft(reversed(worker.jobs))
        if self._waiting:
            self._start_again(1 if worker.ready else worker.start + 1)

    def _start_again(self, start: int) -> None:
        try:
            self._start(start)
        except OSError as error:
            if not self._workers:
                raise EnvironmentProblem(f"no process can be started any more ({error.strerror})") from error
            for worker in self._workers:
                if worker.ready and not worker.jobs:
                    self._give_jobs(worker)

    def _end_all(self) -> None:
        for worker in self._workers:
            if worker.jobs:
                worker.process.kill()
        while self._workers:
            worker = self._workers.pop()
            worker.connection.close()
            release(worker.process, is_idle=worker.ready and not worker.jobs)


def _ignore(share: float) -> None:
    """Nobody wants to hear how far a job is."""

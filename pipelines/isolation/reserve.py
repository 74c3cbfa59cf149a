"""Reserve: processes that have imported what decoding needs, and wait. They begin to work at once, and are used again.

A process takes 0.4 s to import it, longer than one video needs. Who makes a Reserve before it needs a process, and
keeps it, does not wait: `begin` takes processes out of it, `release` gives them back.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

from pipelines.machine.processes import end_process, start_program

_MAIN = "pipelines.isolation.reserve.main"
_PRELOADED = ("pipelines.workers.worker", "pipelines.video.probe", "pipelines.video.sequence")
_MOST_BYTES = 1 << 20  # of an order
_MOST_FILES = 8


class _Waiting(NamedTuple):
    """A process of the reserve, and the socket by which it gets its orders."""

    process: subprocess.Popen[bytes]
    orders: socket.socket


class Reserve:
    """Processes for `begin`, as long as this object is there or one of them is lent. They end with this process."""

    def __init__(self, count: int) -> None:
        """Start `count` processes, or as many as the system allows, without waiting for them."""
        self._lock = threading.Lock()
        self._all: list[_Waiting] = []
        self._end = weakref.finalize(self, _end_all, self._all, os.getpid())
        self._idle: list[_Waiting] = []
        self._lent: dict[int, _Waiting] = {}  # by the id of the process
        with suppress(OSError):
            for _ in range(count):
                self._start()

    def begin(self, main: str, files: tuple[int, ...]) -> subprocess.Popen[bytes] | None:
        """A process that runs `main` as `start_program` has it; None where none waits."""
        with self._lock:
            while self._idle:
                waiting = self._idle.pop()
                if waiting.process.poll() is None and _order(waiting, main, files):
                    self._lent[waiting.process.pid] = waiting
                    return waiting.process
                self._replace(waiting)
            return None

    def release(self, process: subprocess.Popen[bytes]) -> bool:
        """Take back a process whose work is over, its socket closed; False where it is none of this reserve."""
        with self._lock:
            waiting = self._lent.pop(process.pid, None)
            if waiting is None:
                return False
            self._idle.append(waiting)
            return True

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Start another process in place of `process`, which has ended, if it is one of this reserve."""
        with self._lock:
            waiting = self._lent.pop(process.pid, None)
            if waiting is not None:
                self._replace(waiting)

    def close(self) -> None:
        """End the processes at once. From then on none waits here."""
        with self._lock:
            self._idle.clear()
            self._lent.clear()
            self._end()

    def _replace(self, waiting: _Waiting) -> None:
        self._all.remove(waiting)
        waiting.orders.close()
        with suppress(OSError):
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                waiting = _Waiting(start_program(_MAIN, theirs.fileno()), ours)
        except OSError:
            ours.close()
            raise
        self._all.append(waiting)
        self._idle.append(waiting)


_current: weakref.ref[Reserve] | None = None
_lenders: dict[int, Reserve] = {}  # by the id of a process that is lent: it would end with its reserve


def reserve(count: int) -> Reserve:
    """The reserve of this process; one of `count` processes is made if there is none. It ends when nobody keeps it."""
    global _current
    found = None if _current is None else _current()
    if found is None or not found._end.alive:
        found = Reserve(count)
        _current = weakref.ref(found)
    return found


def begin(main: str, descriptor: int, *more: int) -> subprocess.Popen[bytes]:
    """A process that runs `main` as `start_program` has it: one of the reserve if there is one, else a new one."""
    kept = None if _current is None else _current()
    process = None if kept is None else kept.begin(main, (descriptor, *more))
    if kept is None or process is None:
        return start_program(main, descriptor, *more)
    _lenders[process.pid] = kept
    return process


def release(process: subprocess.Popen[bytes], *, is_idle: bool) -> str:
    """Give a process of `begin` back, whose socket is closed, or end it where it is not idle or none of the reserve.

    Tells how it ended, as `end_process` does; empty for a process that is given back.
    """
    kept = _lenders.pop(process.pid, None)
    if kept is None:
        return end_process(process)
    if is_idle and kept.release(process):
        return ""
    ended = end_process(process)
    kept.forget(process)
    return ended


def main(descriptor: int) -> None:
    """Do the work that the parent orders by the socket `descriptor`, one after the other, until the parent ends.

    What is ordered closes the files that it gets.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its processes
    for name in _PRELOADED:
        import_module(name)
    with socket.socket(fileno=descriptor) as orders:
        while True:
            data, files, _, _ = socket.recv_fds(orders, _MOST_BYTES, _MOST_FILES)
            if not data:
                return
            name, folder, paths = json.loads(data)
            with suppress(OSError):
                os.chdir(folder)
            sys.path[:] = paths
            module, _, function = name.rpartition(".")
            getattr(import_module(module), function)(*files)


def _order(waiting: _Waiting, main: str, files: tuple[int, ...]) -> bool:
    """Have a process that waits run `main`; False where it has ended."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - a string is wanted
    except OSError:
        folder = "/"
    paths = [path or folder for path in sys.path]
    try:
        socket.send_fds(waiting.orders, [json.dumps([main, folder, paths]).encode()], files)
    except OSError:
        return False
    return True


def _end_all(waiting: list[_Waiting], owner: int) -> None:
    if os.getpid() != owner:  # this is a fork of the owner, which must not end the owner's processes
        return
    for one in waiting:
        one.process.kill()
    for one in waiting:
        end_process(one.process)
        one.orders.close()
    waiting.clear()

"""Another process that reads one source and sends messages: one that the source crashes or blocks is ended."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem, VideoError
from pipelines.isolation.jobs import CRASHES, HANGS
from pipelines.isolation.process import Ready
from pipelines.isolation.reserve import begin, release
from pipelines.machine.processes import bytes_read, end_process

START_SECONDS = 60.0  # what a process may take to import its modules on a busy machine
_SILENT_WAITS = 100  # how often a process that reads, but gives nothing, is waited for again


class ReadingProcess:
    """A process that reads the source `name`, at the other end of a socket.

    The first number that its `main` gets is the socket. It sends Ready, then pickled messages and the bytes of arrays.
    """

    def __init__(
        self, name: str, main: str, *files: int, stall_seconds: float, start_seconds: float = START_SECONDS
    ) -> None:
        """Begin a process that runs `main` with a socket and open `files`.

        It may send nothing for `stall_seconds`, and for `start_seconds` more while it imports its modules. Raises
        EnvironmentProblem where no process can be started.
        """
        self._name, self._stall = name, stall_seconds
        self._patience = stall_seconds + start_seconds
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = begin(main, theirs.fileno(), *files)
        except OSError as error:
            ours.close()
            raise EnvironmentProblem(
                f"no process can be started that decodes ({error.strerror}); raise the limit of processes (ulimit -u) "
                "or of open files (ulimit -n)"
            ) from error
        self._connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def send(self, what: object) -> None:
        """Send a message to the process."""
        with suppress(OSError):  # it is dead already, which `receive` finds
            self._connection.send(what)

    def receive(self, goes_on: Callable[[], bool] | None = None) -> Any:
        """The next message. Raises VideoError if the process ended, or sent nothing for too long: then it is ended.

        `goes_on` is asked whether one that sends nothing may be waited for as long again. By default it may as long as
        it reads from a file.
        """
        goes_on = goes_on or self._still_reads()
        while True:
            self._wait(goes_on)
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                raise self._crash() from None
            if not isinstance(message, Ready):
                return message

    def receive_array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The array uint8 of `shape` whose bytes the process sends next. Raises VideoError if it ended."""
        array = np.empty(shape, np.uint8)
        try:
            self._connection.recv_bytes_into(array.data.cast("B"))
        except (EOFError, OSError):
            raise self._crash() from None
        return array

    def kill(self) -> None:
        """End the process, from any thread: who waits for a message gets an error."""
        self._process.kill()

    def close(self, *, is_idle: bool) -> None:
        """End the process, or give it back where its work is over."""
        self._connection.close()
        release(self._process, is_idle=is_idle)

    def _crash(self) -> VideoError:
        how = end_process(self._process, at_once=False)
        return VideoError(self._name, CRASHES, f"the process that read it {how}", passing=True)

    def _wait(self, goes_on: Callable[[], bool]) -> None:
        while not self._connection.poll(self._patience):
            if not goes_on():
                detail = f"nothing was read or decoded for {self._stall:g} s, and its process was ended"
                raise VideoError(self._name, HANGS, detail, passing=True)
            self._patience = self._stall
        self._patience = self._stall

    def _still_reads(self) -> Callable[[], bool]:
        """Tells each time whether the process has read something since the time before, but not for ever."""
        read = waits = 0

        def goes_on() -> bool:
            nonlocal read, waits
            before, read, waits = read, bytes_read(self.pid), waits + 1
            return read > before and waits < _SILENT_WAITS

        return goes_on


def send_array(connection: Connection, array: NDArray[np.uint8]) -> None:
    """Send the bytes of `array`, for `receive_array`; on the side of the process that reads."""
    connection.send_bytes(np.ascontiguousarray(array).data.cast("B"))

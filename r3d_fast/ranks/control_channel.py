"""TCP connections between the ranks of a job, for messages, signs of life and errors.

Paddle's collectives can't say which rank has ended, nor why. Here rank 0 has a connection to each other rank. Each rank
sends signs of life from its own thread. So a rank that is slow, as in a step on a CPU or with a bad disk, can be told
from one that hangs or whose machine is gone.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from pipelines.errors import EnvironmentProblem, ExitCode
from r3d_fast.errors import RankFailed, RankLost

_HEADER = struct.Struct(">BQ")  # kind of message, number of bytes that follow
_BEAT, _DATA, _BYE = range(3)
_MOST_BYTES = 1 << 36
_PATIENCE = 20  # a rank that gives signs of life may be late by this many times `timeout`
_BEATS = 10  # signs of life in `timeout` seconds
_GRACE = {True: 5.0, False: 20.0}  # seconds for the other ranks to hear of an error of rank 0 (True) or of another rank
_AGREED = (ExitCode.OK, ExitCode.STOPPED)  # exit codes with which all ranks end at the same step


class Channel:
    """A connection to `rank`.

    `heard`: when the last bytes came, in monotonic seconds. `messages`: messages that came and were not taken yet.
    `left`: (exit code, message) once the other rank has said that it ends.
    """

    def __init__(self, connection: socket.socket, rank: int) -> None:
        self.socket, self.rank = connection, rank
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard, self.closed = time.monotonic(), False
        self.left: tuple[int, str] | None = None
        self.messages: deque[bytes] = deque()
        self._buffer, self._lock = bytearray(), threading.Lock()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one message. No error is raised if the other rank is gone: that is noticed when receiving."""
        with self._lock, suppress(OSError):
            self.socket.sendall(_HEADER.pack(kind, len(payload)))
            self.socket.sendall(payload)

    def beat(self) -> None:
        """Send a sign of life, unless a message is being sent, which is a sign of life too."""
        if self._lock.acquire(blocking=False):
            with suppress(OSError):
                self.socket.sendall(_HEADER.pack(_BEAT, 0))
            self._lock.release()

    def fill(self) -> None:
        """Read the bytes that have come, and take whole messages out of them."""
        try:
            chunk = self.socket.recv(1 << 20)
        except OSError:
            chunk = b""
        self.closed = not chunk
        self.heard = time.monotonic()
        self._buffer += chunk
        while len(self._buffer) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._buffer)
            if kind > _BYE or size > _MOST_BYTES:
                self.closed = True  # the other side is not r3d-fast
                return
            end = _HEADER.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if kind == _DATA:
                self.messages.append(payload)
            elif kind == _BYE:
                code, message = json.loads(payload)
                self.left = int(code), str(message)


class Control:
    """The connections of one rank. All ranks call the methods in the same order, except `check`, `blame` and `leave`.

    `timeout`: seconds without a sign of life after which a rank counts as lost. A rank that gives signs of life may be
    late by 20 times that. The methods raise RankLost where a rank is lost, RankFailed where a rank has ended.
    """

    def __init__(self, rank: int, channels: Sequence[Channel], timeout: float) -> None:
        self.rank, self.timeout = rank, timeout
        self._channels = sorted(channels, key=lambda channel: channel.rank)
        self._selector = selectors.DefaultSelector()
        for channel in self._channels:
            channel.socket.settimeout(_PATIENCE * timeout)
            self._selector.register(channel.socket, selectors.EVENT_READ, channel)
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="signs of life", daemon=True).start()

    def gather(self, payload: bytes) -> list[bytes]:
        """The payloads of all ranks, in the order of the ranks, on rank 0; an empty list on the others."""
        if self.rank != 0:
            self._send(payload)
            return []
        return [payload, *self._receive()]

    def broadcast(self, payload: bytes) -> bytes:
        """The payload of rank 0, on every rank."""
        if self.rank == 0:
            self._send(payload)
            return payload
        return self._receive()[0]

    def check(self, since: float) -> None:
        """Raise if a rank has ended, is gone, or has sent nothing for too long since `since` (monotonic seconds)."""
        self._pump(0.0)
        for channel in self._channels:
            if not channel.messages:  # messages that a rank sent before it ended are taken first
                self._raise_if_lost(channel, since)

    def blame(self, problem: str) -> NoReturn:
        """Raise an error for a collective that failed with the message `problem`; names the rank that caused it."""
        start = time.monotonic()
        while time.monotonic() - start < 3 * self.timeout / _BEATS:
            self.check(start)
            time.sleep(0.02)
        for channel in self._channels:
            if channel.heard < time.monotonic() - 2 * self.timeout / _BEATS:
                self._silent(channel, self.timeout)
        raise RankLost(f"the ranks can't compute together any more: {problem}; go on with --resume auto")

    def leave(self, exit_code: int, message: str) -> None:
        """Tell the other ranks that this one ends, and wait until they end too; without that they would call it lost.

        With an exit code on which all ranks agree it waits for the slowest rank, with another one only a few seconds.
        """
        self._send(json.dumps([exit_code, message]).encode(), _BYE)
        agreed = exit_code in _AGREED
        end = time.monotonic() + (_PATIENCE * self.timeout if agreed else _GRACE[self.rank == 0])
        while time.monotonic() < end:
            start = time.monotonic()
            self._pump(min(0.2, self.timeout))
            silent = [c for c in self._channels if start - c.heard > self.timeout]
            if all(c.left or c.closed or c in silent for c in self._channels):
                break
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._over.set()
        self._selector.close()
        for channel in self._channels:
            channel.socket.close()

    def _beat(self) -> None:
        while not self._over.wait(self.timeout / _BEATS):
            for channel in self._channels:
                channel.beat()

    def _send(self, payload: bytes, kind: int = _DATA) -> None:
        for channel in self._channels:
            channel.send(kind, payload)

    def _pump(self, seconds: float) -> None:
        """Read what comes on any connection; waits up to `seconds` for the first bytes."""
        for key, _ in self._selector.select(seconds):
            key.data.fill()
            if key.data.closed:
                self._selector.unregister(key.fileobj)

    def _receive(self) -> list[bytes]:
        """One message from each connection, in the order of the ranks."""
        start, got = time.monotonic(), dict[int, bytes]()
        while True:
            for channel in self._channels:
                if channel.rank in got:
                    continue
                if channel.messages:
                    got[channel.rank] = channel.messages.popleft()
                else:
                    self._raise_if_lost(channel, start)
            if len(got) == len(self._channels):
                return [got[channel.rank] for channel in self._channels]
            self._pump(min(0.2, self.timeout / _BEATS))

    def _raise_if_lost(self, channel: Channel, start: float) -> None:
        rank, now = channel.rank, time.monotonic()
        if channel.left is not None:
            code, message = channel.left
            # Rank 0 hears the messages of all ranks; only it shows them, so that each is shown once.
            raise RankFailed(code or 1, f"rank {rank}: {message or 'ended too early'}" if self.rank == 0 else "")
        if channel.closed:
            raise RankLost(
                f"rank {rank} is gone: its connection broke, and the other ranks end too; see its log, and go on with "
                "--resume auto"
            )
        if now - max(channel.heard, start) > self.timeout:
            self._silent(channel, now - max(channel.heard, start))
        if now - start > _PATIENCE * self.timeout:
            raise RankLost(
                f"rank {rank} is alive, but {now - start:.0f} s late; go on with --resume auto, or allow more time: "
                "-o train.rank_timeout_seconds=SECONDS (a rank may be late by 20 times that)"
            )

    def _silent(self, channel: Channel, seconds: float) -> NoReturn:
        raise RankLost(
            f"rank {channel.rank} has given no sign of life for {seconds:.0f} s: it hangs, or its machine is gone; "
            "the other ranks end; go on with --resume auto"
        )


def open_control(rank: int, count: int, address: tuple[str, int], timeout: float, version: str) -> Control:
    """The connections of `rank` in a job of `count` ranks; rank 0 listens at `address`, the others connect to it.

    Raises EnvironmentProblem where a rank does not connect within 20 times `timeout`, or runs another `version`.
    """
    end = time.monotonic() + _PATIENCE * timeout
    hello: dict[str, str | int] = {"r3d-fast": version, "rank": rank, "count": count}
    if rank == 0:
        return Control(0, _await_others(hello, address, end), timeout)
    while True:
        try:
            connection = socket.create_connection(address, timeout=5.0)
            break
        except OSError as error:
            if time.monotonic() > end:
                raise EnvironmentProblem(
                    f"rank {rank}: rank 0 does not answer at {address[0]}:{address[1]} ({error}); "
                    "expected machines that can reach each other on every port"
                ) from error
            time.sleep(0.1)
    channel = Channel(connection, 0)
    channel.send(_DATA, json.dumps(hello).encode())
    return Control(rank, [channel], timeout)


def _await_others(hello: dict[str, str | int], address: tuple[str, int], end: float) -> list[Channel]:
    """The connections of rank 0 to all other ranks; `end`: until when it waits for them, in monotonic seconds."""
    count = int(hello["count"])
    channels: dict[int, Channel] = {}
    try:
        server = socket.create_server(address, backlog=count)
    except OSError as error:
        raise EnvironmentProblem(
            f"rank 0 can't listen at {address[0]}:{address[1]}: {error}; expected a free port of this machine"
        ) from error
    with server:
        while len(channels) < count - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError as error:
                missing = [rank for rank in range(1, count) if rank not in channels]
                raise EnvironmentProblem(
                    f"rank 0: ranks {missing} of {count} did not connect; see their logs"
                ) from error
            greeting = _greeting(connection)
            rank = greeting.get("rank")
            if not isinstance(rank, int) or not 0 < rank < count or rank in channels or greeting["count"] != count:
                connection.close()
                continue
            if greeting["r3d-fast"] != hello["r3d-fast"]:
                raise EnvironmentProblem(
                    f"rank {rank} runs r3d-fast {greeting['r3d-fast']}, rank 0 runs {hello['r3d-fast']}; install the "
                    "same version on all machines"
                )
            channels[rank] = Channel(connection, rank)
    return list(channels.values())


def _greeting(connection: socket.socket) -> dict[str, str | int]:
    """The greeting of a new connection: version, rank and count; empty where the other side is not r3d-fast."""
    connection.settimeout(5.0)
    try:
        kind, size = _HEADER.unpack(_exactly(connection, _HEADER.size))
        values = json.loads(_exactly(connection, size)) if kind == _DATA and size < 1000 else {}
    except (OSError, ValueError, struct.error):
        return {}
    return values if isinstance(values, dict) and {"r3d-fast", "rank", "count"} <= values.keys() else {}


def _exactly(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes of `connection`. Raises OSError where it is closed before."""
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data

"""Senders of live streams on this machine: a video as MPEG-TS over TCP or HTTP, each frame at its time."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Thread
from types import TracebackType

import av
import av.error

_HTTP = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


class Sender:
    """Sends the packets of `video` to whoever connects, at `pace` times the speed at which it was filmed (0: at once).

    `parts` has the number of frames for each connection: the first one gets the first part, the next one what follows.
    After the last one nobody listens any more. `silent` has the seconds for which each connection sends nothing at
    first (default: 0). A frame whose time in the video is not before `until()`, in seconds, waits until it is. `sent`
    has the time.monotonic() at which each connection began to send, and `frames` counts what was sent.
    """

    def __init__(
        self, video: Path, *, parts: Sequence[int], pace: float = 1.0, http: bool = False,
        silent: Sequence[float] = (), until: Callable[[], float] = lambda: math.inf,
    ) -> None:  # fmt: skip
        self._video, self._parts, self._pace, self._http = video, parts, pace, http
        self._silent = silent or [0.0] * len(parts)
        self._until, self._over = until, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"{'http' if http else 'tcp'}://127.0.0.1:{self.port}"
        self.sent: list[float] = []
        self.frames = 0
        self._thread = Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._listener.close()

    def _serve(self) -> None:
        first = 0
        for count, silent in zip(self._parts, self._silent, strict=True):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            with connection, suppress(OSError, av.error.FFmpegError):  # who reads has gone
                if self._http:
                    connection.recv(1 << 16)
                    connection.sendall(_HTTP)
                time.sleep(silent)
                self.sent.append(time.monotonic())
                self._send(connection, first, count)
            first += count
        self._listener.close()

    def _send(self, connection: socket.socket, first: int, count: int) -> None:
        options = {"flush_packets": "1", "muxdelay": "0", "muxpreload": "0"}
        with (
            av.open(str(self._video)) as source,
            av.open(_File(connection), "w", format="mpegts", container_options=options) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            begin, step = time.monotonic(), 1 / Fraction(source.streams.video[0].average_rate or 25)
            for number, packet in enumerate(source.demux(video=0)):
                if number < first or not packet.size:
                    continue
                if number >= first + count:
                    return
                if self._pace:
                    time.sleep(max(0.0, begin + (number - first) * float(step) / self._pace - time.monotonic()))
                while number * step >= self._until() and not self._over:
                    time.sleep(0.005)
                packet.stream = stream
                target.mux(packet)
                self.frames += 1


class _File:
    """A connection as a file to write to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)

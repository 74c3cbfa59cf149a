"""A camera that speaks RTSP, on this machine: it plays a video in real time, as RTP within the connection."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType

import av
import av.error

_DESCRIPTION = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    b"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
)
_LARGEST = 1400  # bytes of an RTP packet


class Camera:
    """Plays `video`, H.264 in an MPEG-TS of 25 frames a second, once to each that connects, and then hangs up.

    A frame whose time in the video is not before `until()`, in seconds, waits until it is. `asked` has the requests
    that came, as (method, headers).
    """

    def __init__(self, video: Path, until: Callable[[], float] = lambda: math.inf) -> None:
        self._video, self._until, self._over = video, until, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked: list[tuple[str, dict[str, str]]] = []

    def __enter__(self) -> Camera:
        Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            with connection, suppress(OSError, av.error.FFmpegError):  # who watched has gone
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        """Answer requests until one asks to play."""
        lines = connection.makefile("rb")
        while first := lines.readline().split():
            method, address = first[0].decode(), first[1].decode()
            headers: dict[str, str] = {}
            while (line := lines.readline().strip()) != b"":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            self.asked.append((method, headers))
            body = _DESCRIPTION if method == "DESCRIBE" else b""
            size = len(body)
            answer = {
                "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\nContent-Length: {size}\r\n",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
            }.get(method, "Session: 1\r\n")
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{answer}\r\n".encode() + body)
            if method == "PLAY":
                self._play(connection)
                return

    def _play(self, connection: socket.socket) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", 0))
            target = f"rtp://127.0.0.1:{packets.getsockname()[1]}?pkt_size={_LARGEST}"
            with av.open(str(self._video)) as source, av.open(target, "w", format="rtp") as output:
                stream = output.add_stream_from_template(source.streams.video[0])
                begin = time.monotonic()
                for number, packet in enumerate(source.demux(video=0)):
                    if packet.size:
                        time.sleep(max(0.0, begin + number / 25 - time.monotonic()))
                        while number / 25 >= self._until() and not self._over:
                            time.sleep(0.005)
                        packet.stream = stream
                        output.mux(packet)
                        _pass_on(packets, connection)


def _pass_on(packets: socket.socket, connection: socket.socket) -> None:
    """Send what has come as RTP within the connection (RFC 2326, 10.12)."""
    packets.settimeout(0.005)
    with suppress(TimeoutError):
        while True:
            data = packets.recv(1 << 16)
            connection.sendall(b"$\0" + len(data).to_bytes(2, "big") + data)

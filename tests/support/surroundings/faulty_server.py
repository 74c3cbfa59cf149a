"""An HTTP server on this machine that serves files from memory and fails in the ways that real ones do."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """What goes wrong with one answer: the body ends `after` so many bytes, `status` replaces the answer, and so on."""

    after: int | None = None
    status: int = 0
    location: str = ""  # the target of a redirect
    chunk_seconds: float = 0.0  # the pause after each 1 kB
    no_range: bool = False  # send the whole file even if a range was asked for
    range_shift: int = 0  # how many bytes too late the range begins
    length_off_by: int = 0  # added to the Content-Length
    content_type: str = "application/octet-stream"


@dataclass
class FaultyServer:
    """A server of `files` by path. Each request is noted in `requests`, and takes the next fault of its path if any."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    has_tags: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)  # (path, Range header)
    sent: int = 0
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, asked = handler.path, handler.headers.get("Range", "")
        self.requests.append((path, asked))
        fault = self.faults[path].pop(0) if self.faults[path] else Fault()
        data = self.files.get(path)
        if fault.status or data is None:
            handler.send_response(fault.status or 404)
            if fault.location:
                handler.send_header("Location", fault.location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        begin = int(asked.removeprefix("bytes=").partition("-")[0]) if asked.startswith("bytes=") else 0
        partial = bool(asked) and not fault.no_range and handler.headers.get("If-Range", tag) == tag
        begin = begin + fault.range_shift if partial else 0
        if partial and begin >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if partial else 200)
        if partial:
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if self.has_tags:
            handler.send_header("ETag", tag)
        handler.send_header("Content-Type", fault.content_type)
        handler.send_header("Content-Length", str(len(data) - begin + fault.length_off_by))
        handler.end_headers()
        body = data[begin:] if fault.after is None else data[begin : begin + fault.after]
        for at in range(0, len(body), 1024):
            handler.wfile.write(body[at : at + 1024])
            self.sent += len(body[at : at + 1024])
            time.sleep(fault.chunk_seconds)
        handler.close_connection = True


@contextmanager
def serving(server: FaultyServer) -> Iterator[FaultyServer]:
    """A block in which the server runs on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()

"""Downloads that go on where they were cut, and are there under their name only when they are whole and right."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from pipelines.errors import DataError, EnvironmentProblem, UsageError
from r3d_fast.download.unpacking import disk_is_full, out_of_room
from r3d_fast.files import file_digest, put_in_place, replaced_file
from r3d_fast.version import __version__

OnBytes = Callable[[int, int], None]
PART = ".part"
_CHUNK = 2**18
_TIMEOUT_SECONDS = 60.0  # without a byte
_MOST_WAIT_SECONDS = 30.0
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may change when asked again


@dataclass(frozen=True)
class Wanted:
    """A file to download: where it lies, its size in bytes and checksum, ``sha256:...`` or ``md5:...``, where known."""

    url: str
    size: int | None = None
    checksum: str = ""


def fetch(
    wanted: Wanted,
    target: Path,
    *,
    tries: int = 8,
    pause: Callable[[float], None] = time.sleep,
    on_bytes: OnBytes | None = None,
) -> None:
    """Download `wanted` as `target`; what is there of it already is kept, and a whole one is not downloaded again.

    It grows as ``<target>.part``. A cut connection is tried again, `tries` times without a new byte, with growing
    pauses. `on_bytes` is told bytes had and bytes in all. Raises DataError where the server has something else than
    expected, EnvironmentProblem where it can't be reached or the disk is full, UsageError where the address is none or
    another process is at it.
    """
    if urlsplit(wanted.url).scheme not in ("http", "https") or not urlsplit(wanted.url).netloc:
        raise UsageError(f"{wanted.url}: expected an address that begins with http:// or https://")
    if target.exists():
        _check(wanted, target, target)
        return
    part = target.with_name(target.name + PART)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            _lock(file, part)
            _Download(wanted, target, part, file, pause, on_bytes).run(tries)
            _check(wanted, part, target)
            put_in_place(part, target)
    except OSError as error:
        if disk_is_full(error):
            have = part.stat().st_size
            raise out_of_room(f"downloading {target.name}", target.parent, (wanted.size or have) - have) from error
        raise EnvironmentProblem(f"{target}: can't be written: {error.strerror or error}") from error
    _notes(part).unlink(missing_ok=True)


class _Notes(NamedTuple):
    """What an answer said of the file: a tag or date that another one doesn't have, and its size in bytes."""

    validator: str = ""
    total: int | None = None


class _Cut(Exception):
    """The connection failed in a way that may not last."""


class _Download:
    """One file on its way: `file` is its part, which is only appended to or begun anew."""

    def __init__(
        self, wanted: Wanted, target: Path, part: Path, file: BinaryIO, pause: Callable[[float], None],
        on_bytes: OnBytes | None,
    ) -> None:  # fmt: skip
        self.wanted, self.target, self.part, self.file = wanted, target, part, file
        self.pause, self.on_bytes = pause, on_bytes
        self.opener = urllib.request.build_opener(_Redirects())

    def run(self, tries: int) -> None:
        """Ask for what is not there yet until all is there."""
        failures = 0
        while True:
            before = self.have
            try:
                self.ask()
                return
            except _Cut as cut:
                failures = 1 if self.have > before else failures + 1
                if failures >= tries:
                    raise EnvironmentProblem(
                        f"{self.wanted.url}: {cut}, {failures} times in a row; check the connection and run the "
                        f"command again: it goes on after {self.have} bytes; or name another folder with --mirror URL"
                    ) from cut
                self.pause(min(2.0 ** (failures - 1), _MOST_WAIT_SECONDS))

    @property
    def have(self) -> int:
        """Bytes that are there."""
        return os.fstat(self.file.fileno()).st_size

    def ask(self) -> None:
        """One request. Raises _Cut where it ended early."""
        notes = self.read_notes()
        request = urllib.request.Request(self.wanted.url, headers={"User-Agent": f"r3d-fast/{__version__}"})
        request.add_header("Accept-Encoding", "identity")
        if self.have and not notes.validator:
            self.begin_anew()  # nothing would tell that the file there is still the one that this is a part of
        if self.have:
            if self.have == notes.total:
                return
            request.add_header("Range", f"bytes={self.have}-")
            request.add_header("If-Range", notes.validator)
        try:
            with self.opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                self.take(response)
        except urllib.error.HTTPError as error:
            with error:
                self.refuse(error)
        except urllib.error.URLError as error:
            raise _Cut(f"no connection ({error.reason})") from error
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise _Cut(f"the connection was cut ({error or type(error).__name__})") from error

    def refuse(self, error: urllib.error.HTTPError) -> None:
        """An answer that is no file."""
        if error.code == 416:  # what is there is no part of what the server has
            self.begin_anew()
            raise _Cut("the server has another file now") from error
        if error.code in _BUSY:
            raise _Cut(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"{self.wanted.url}: the server answers {error.code} {error.reason}; the file may have moved: find it, and "
            "name its folder with --mirror URL"
        ) from error

    def take(self, response: http.client.HTTPResponse) -> None:
        """Append what the server sends, from where it begins."""
        length = response.headers.get("Content-Length", "")
        rest = int(length) if length.isdecimal() else None
        if response.status == 206:
            begin, total = _content_range(response.headers.get("Content-Range", ""))
            if begin != self.have:
                self.begin_anew()
                raise _Cut("the server sent another part than asked for")
        else:
            self.begin_anew()
            total = rest
        if response.headers.get_content_type() == "text/html":
            raise DataError(
                f"{self.wanted.url}: is a web page, not a file; find the file, and name its folder with --mirror"
            )
        if None not in (total, self.wanted.size) and total != self.wanted.size:
            raise DataError(
                f"{self.wanted.url}: the server has a file of {total} bytes, expected {self.wanted.size}; "
                "it is another one: name the folder of the right one with --mirror URL"
            )
        total = total if total is not None else self.wanted.size
        if total is not None and shutil.disk_usage(self.part.parent).free < total - self.have:
            raise out_of_room(f"downloading {self.target.name}", self.part.parent, total - self.have)
        self.write_notes(response, total)
        end = None if rest is None else self.have + rest
        while data := response.read(_CHUNK):
            self.file.write(data)
            self.file.flush()
            if self.on_bytes is not None:
                self.on_bytes(self.have, total or 0)
        if end is not None and self.have < end:
            raise _Cut(f"the connection was cut after {self.have} of {total or end} bytes")

    def begin_anew(self) -> None:
        """Throw away what is there."""
        self.file.truncate(0)
        _notes(self.part).unlink(missing_ok=True)

    def read_notes(self) -> _Notes:
        """What an earlier answer said of the file that this is a part of; nothing if it was another address."""
        try:
            notes = json.loads(_notes(self.part).read_text(encoding="utf-8"))
            return _Notes(notes["validator"], notes["total"]) if notes["url"] == self.wanted.url else _Notes()
        except (OSError, ValueError, KeyError, TypeError):
            return _Notes()

    def write_notes(self, response: http.client.HTTPResponse, total: int | None) -> None:
        """Keep what tells later whether the server's file is still the same."""
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")  # a weak tag won't do
        notes = {"url": self.wanted.url, "validator": validator, "total": total}
        with replaced_file(_notes(self.part)) as file:
            file.write(json.dumps(notes).encode())


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, request: urllib.request.Request, file: IO[bytes], code: int, message: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        old, new = urlsplit(request.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise DataError(
                f"{request.full_url}: leads to {newurl}, which is not encrypted; refused: name a folder to trust with "
                "--mirror URL"
            )
        return super().redirect_request(request, file, code, message, headers, newurl)


def _check(wanted: Wanted, path: Path, target: Path) -> None:
    """Raise DataError unless the file is as wanted; a downloaded one that isn't is removed."""
    size = path.stat().st_size
    came, expected = f"{size} bytes", f"{wanted.size} bytes"
    right = wanted.size in (None, size)
    if right and wanted.checksum:
        name, _, expected = wanted.checksum.partition(":")
        came = file_digest(path, name)
        right, came, expected = came == expected, f"{name} {came}", f"{name} {expected}"
    if right:
        return
    if path == target:
        raise DataError(f"{target}: is there with {came}, expected {expected}; move it away to download it")
    path.unlink()
    _notes(path).unlink(missing_ok=True)
    raise DataError(
        f"{wanted.url}: downloaded with {came}, expected {expected}; it was thrown away: run the command again, and if "
        "it stays so, name another address with --mirror URL"
    )


def _content_range(value: str) -> tuple[int, int | None]:
    """(first byte, size of the whole file) of a header ``bytes 10-99/100``; (-1, None) if it is none."""
    span, _, total = value.removeprefix("bytes").strip().partition("/")
    begin = span.partition("-")[0]
    return int(begin) if begin.isdecimal() else -1, int(total) if total.isdecimal() else None


def _lock(file: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{part}: another process is downloading it; wait for it") from error
    except OSError:
        return  # some network disks have no locks


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")

"""Downloads a file. An interrupted download continues where it stopped; the file gets its name when it is checked."""

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
from pipelines.output.files import file_digest, put_in_place, replaced_file
from pipelines.output.undoing import delete_file, undone
from r3d_fast.download.unpacking import disk_is_full, out_of_room
from r3d_fast.version import __version__

OnBytes = Callable[[int, int], None]  # (bytes that are there, bytes in all)
PART = ".part"
_CHUNK = 2**18
_TIMEOUT_SECONDS = 60.0  # longest wait for the next byte
_MOST_WAIT_SECONDS = 30.0  # longest pause before the next try
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes after which another try may succeed


@dataclass(frozen=True)
class Wanted:
    """A file to download: its address and, if known, its size in bytes and checksum, `sha256:...` or `md5:...`."""

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
    """Download `wanted` to the file `target`, unless that is already there and passes the checks.

    The download goes to `<target>.part`, and continues there if an earlier one was interrupted. If the connection
    fails, it is tried again after a pause, until it has failed `tries` times in a row without a new byte. `pause`
    sleeps for a number of seconds. `on_bytes` is called with the bytes that are there and the bytes in all. Raises
    DataError if the server has another file than expected, EnvironmentProblem if it can't be reached or the disk is
    full, UsageError for an address that is not http(s), or if another process is downloading the same file.
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
            download = _Download(wanted, target, part, file, pause, on_bytes)
            with undone(download.delete_useless):
                try:
                    download.run(tries)
                except BaseException:
                    download.delete_useless()
                    raise
            _check(wanted, part, target)
            put_in_place(part, target)
    except OSError as error:
        if disk_is_full(error):
            have = part.stat().st_size if part.exists() else 0
            raise out_of_room(f"downloading {target.name}", target.parent, (wanted.size or have) - have) from error
        raise EnvironmentProblem(f"{target}: can't be written: {error.strerror or error}") from error
    _notes(part).unlink(missing_ok=True)


class _Notes(NamedTuple):
    """What the server said about the file: a tag or date that changes when the file changes, and its size in bytes."""

    validator: str = ""
    total: int | None = None


class _Cut(Exception):
    """The connection failed, and another try may succeed."""


class _Download:
    """The download of one file. `file` is its open `.part` file, to which data is appended."""

    def __init__(
        self, wanted: Wanted, target: Path, part: Path, file: BinaryIO, pause: Callable[[float], None],
        on_bytes: OnBytes | None,
    ) -> None:  # fmt: skip
        self.wanted, self.target, self.part, self.file = wanted, target, part, file
        self.pause, self.on_bytes = pause, on_bytes
        self.opener = urllib.request.build_opener(_Redirects())

    def run(self, tries: int) -> None:
        """Send requests until the whole file is there. Raises EnvironmentProblem after `tries` failures in a row."""
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
                        f"command again (it continues after {self.have} bytes), or name another folder on the web with "
                        "--mirror URL"
                    ) from cut
                self.pause(min(2.0 ** (failures - 1), _MOST_WAIT_SECONDS))

    @property
    def have(self) -> int:
        """The number of bytes that are downloaded."""
        return os.fstat(self.file.fileno()).st_size

    def ask(self) -> None:
        """Send one request and store the answer. Raises _Cut if the connection fails."""
        notes = self.read_notes()
        request = urllib.request.Request(self.wanted.url, headers={"User-Agent": f"r3d-fast/{__version__}"})
        request.add_header("Accept-Encoding", "identity")
        if self.have and not notes.validator:
            self.begin_anew()  # without a tag or date, the file on the server may have changed since then
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
        """Handle an HTTP error. Raises _Cut if another try may succeed, else DataError."""
        if error.code == 416:  # the range is not in the file, so the file on the server has changed
            self.begin_anew()
            raise _Cut("the server has another file now") from error
        if error.code in _BUSY:
            raise _Cut(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"{self.wanted.url}: the server answers {error.code} {error.reason}; if the file was moved, find its new "
            "address and give the folder with --mirror URL"
        ) from error

    def take(self, response: http.client.HTTPResponse) -> None:
        """Append what the server sends to the file. Raises _Cut if it sent less or another part than asked for."""
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
                f"{self.wanted.url}: the server sent a web page, not the file; find the address of the file and give "
                "its folder with --mirror URL"
            )
        if None not in (total, self.wanted.size) and total != self.wanted.size:
            raise DataError(
                f"{self.wanted.url}: the server has a file of {total} bytes, expected {self.wanted.size}; "
                "find the address of the right file and give its folder with --mirror URL"
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
        """Delete what was downloaded, to download from the first byte."""
        self.file.truncate(0)
        _notes(self.part).unlink(missing_ok=True)

    def delete_useless(self) -> None:
        """Delete what was downloaded if no later call can go on with it: it is nothing, or nothing vouches for it."""
        notes = self.read_notes()
        if not self.have or not (notes.validator or self.have == notes.total):
            delete_file(self.part)
            delete_file(_notes(self.part))

    def read_notes(self) -> _Notes:
        """What the server said about the file when the part was downloaded; empty if that was from another address."""
        try:
            notes = json.loads(_notes(self.part).read_text(encoding="utf-8"))
            return _Notes(notes["validator"], notes["total"]) if notes["url"] == self.wanted.url else _Notes()
        except (OSError, ValueError, KeyError, TypeError):
            return _Notes()

    def write_notes(self, response: http.client.HTTPResponse, total: int | None) -> None:
        """Store what shows later whether the file on the server is still the same."""
        tag = response.headers.get("ETag", "")
        # A weak tag (W/"...") does not promise the same bytes, so it can't be used.
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        notes = {"url": self.wanted.url, "validator": validator, "total": total}
        with replaced_file(_notes(self.part)) as file:
            file.write(json.dumps(notes).encode())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except from https to an address without encryption."""

    def redirect_request(
        self, request: urllib.request.Request, file: IO[bytes], code: int, message: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        old, new = urlsplit(request.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise DataError(
                f"{request.full_url}: the server redirects to {newurl}, which is not encrypted, so it is refused; give "
                "a folder that you trust with --mirror URL"
            )
        return super().redirect_request(request, file, code, message, headers, newurl)


def _check(wanted: Wanted, path: Path, target: Path) -> None:
    """Raise DataError unless the file at `path` has the wanted size and checksum; a wrong `.part` is deleted.

    `path` is `target` itself for a file that was there before the download.
    """
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
        raise DataError(
            f"{target}: exists with {came}, expected {expected}; move or delete it, and run the command again"
        )
    path.unlink()
    _notes(path).unlink(missing_ok=True)
    raise DataError(
        f"{wanted.url}: downloaded with {came}, expected {expected}; it was deleted; run the command again, and if "
        "that does not help, give another folder on the web with --mirror URL"
    )


def _content_range(value: str) -> tuple[int, int | None]:
    """(first byte, size of the whole file) of a header like `bytes 10-99/100`; -1 or None for what is not given."""
    span, _, total = value.removeprefix("bytes").strip().partition("/")
    begin = span.partition("-")[0]
    return int(begin) if begin.isdecimal() else -1, int(total) if total.isdecimal() else None


def _lock(file: BinaryIO, part: Path) -> None:
    """Lock the `.part` file for this process. Raises UsageError if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{part}: another process is downloading it; wait until that has finished") from error
    except OSError:
        return  # some network disks have no locks


def _notes(part: Path) -> Path:
    """The file that stores the _Notes about a `.part` file."""
    return part.with_name(part.name + ".json")

"""KnownBad: the videos of an index that must not be decoded, in a file beside it: ``INDEX.quarantine``.

A training enters a video that took its workers down, `r3d-fast data check --quarantine` what a full decode proves. The
file has one JSON object a line. An entry holds as long as the video's file has the size and time that it had then.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.input.regular_files import what_lies_at
from pipelines.output.files import new_file
from pipelines.output.places import write_errors
from pipelines.video.record import Span

SUFFIX = ".quarantine"
_MOST_ENTRIES = 100_000  # the oldest ones leave first
_MOST_BYTES = 1 << 26  # of the file; the rest isn't read
_LONGEST = 300  # characters of reason and detail
_log = logging.getLogger(__name__)


class BadVideo(NamedTuple):
    """A video that must not be decoded, and why.

    `path` is that of its file, relative to the root of the index. `span` is the part of the file in seconds that is
    meant; None: all of it. `size` in bytes and `mtime_ns` are those of the file when the fault was found.
    """

    path: str
    span: Span | None
    size: int
    mtime_ns: int
    reason: str
    detail: str = ""

    @classmethod
    def of_file(cls, root: Path, path: str, span: Span | None, reason: str, detail: str = "") -> BadVideo:
        """The entry for `root`/`path` as the file is now. Raises OSError if it can't be looked at."""
        status = (root / path).stat()
        return cls(path, span, status.st_size, status.st_mtime_ns, reason, detail)

    def holds(self, root: Path) -> bool:
        """Whether the file under `root` is still the one in which the fault was found."""
        try:
            status = (root / self.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


class KnownBad:
    """The entries of the file beside the index at `index`, each video once, the latest last.

    Several processes may enter videos at once: each reads, adds and replaces the file under a lock.
    """

    def __init__(self, index: str | Path) -> None:
        self.path = Path(f"{index}{SUFFIX}")

    def entries(self) -> list[BadVideo]:
        """All entries, also those of files that have changed since. Lines that can't be read are left out, and logged.

        No file means no entries.
        """
        found: dict[tuple[str, Span | None], BadVideo] = {}
        damaged = 0
        for line in self._lines():
            try:
                entry = _parsed(line)
            except (ValueError, TypeError, KeyError, RecursionError):
                damaged += 1
                continue
            found.pop((entry.path, entry.span), None)
            found[entry.path, entry.span] = entry
        if damaged:
            what = "1 line" if damaged == 1 else f"{damaged} lines"
            _log.warning(
                "%s: %s can't be read; the other entries hold; the next change of the file leaves %s out, and "
                "`r3d-fast data check --full --quarantine` finds again what they named",
                self.path, what, "it" if damaged == 1 else "them",
            )  # fmt: skip
        return list(found.values())

    def holding(self, root: Path) -> list[BadVideo]:
        """The entries whose file under `root` is still the same."""
        return [entry for entry in self.entries() if entry.holds(root)]

    def add(self, *videos: BadVideo) -> None:
        """Enter `videos`; an older entry of the same video is replaced. Raises UsageError if that can't be written."""
        if not videos:
            return
        with self._alone():
            new = {(video.path, video.span) for video in videos}
            kept = [entry for entry in self.entries() if (entry.path, entry.span) not in new]
            self._write([*kept, *videos][-_MOST_ENTRIES:])

    def keep(self, entries: list[BadVideo]) -> None:
        """Leave only those of `entries` that are there. Raises UsageError if that can't be written."""
        if not self.path.exists():
            return
        with self._alone():
            wanted = set(entries)
            self._write([entry for entry in self.entries() if entry in wanted])

    def clear(self) -> int:
        """Delete all entries, and the file. Gives how many there were. Raises UsageError if it can't be deleted."""
        count = len(self.entries())
        with write_errors(self.path):
            self.path.unlink(missing_ok=True)
        return count

    def _lines(self) -> list[bytes]:
        """The lines of the file; none if it isn't there, or is no regular file, which is logged."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                lies = what_lies_at(self.path)
                _log.warning("%s: it is %s; expected a file; no entry of it holds: remove it", self.path, lies)
                return []
            with self.path.open("rb") as file:
                return [line for line in file.read(_MOST_BYTES).split(b"\n") if line.strip()]
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning(
                "%s: can't be read (%s); no entry of it holds; make it readable or remove it",
                self.path,
                error.strerror,
            )
            return []

    def _write(self, entries: list[BadVideo]) -> None:
        with new_file(self.path) as file:
            for entry in entries:
                file.write(_line(entry))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block that no other process is in for this file. Raises UsageError if the file can't be written."""
        with write_errors(self.path):
            descriptor = self._locked()
        try:
            yield
        finally:
            os.close(descriptor)

    def _locked(self) -> int:
        """A descriptor of the file, locked. One that was replaced while we waited is opened anew."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, f"it is {what_lies_at(self.path)}; expected a file: remove it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            except FileNotFoundError:  # `clear` has deleted it
                pass
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def reasons_of(videos: Sequence[tuple[str, Span | None]], known: Sequence[BadVideo]) -> dict[int, str]:
    """Why each of `videos`, (path, part), that `known` names must not be decoded, by its number.

    An entry for a whole file counts for each of its parts.
    """
    reasons = {(entry.path, entry.span): entry for entry in known}
    found: dict[int, str] = {}
    for number, (path, span) in enumerate(videos):
        entry = reasons.get((path, None)) or reasons.get((path, span))
        if entry is not None:
            found[number] = f"{entry.reason}: {entry.detail}" if entry.detail else entry.reason
    return found


def _line(entry: BadVideo) -> bytes:
    values = entry._asdict() | {"reason": entry.reason[:_LONGEST], "detail": entry.detail[:_LONGEST]}
    return json.dumps(values).encode() + b"\n"


def _parsed(line: bytes) -> BadVideo:
    """The entry in a line of the file. Raises ValueError, TypeError or KeyError for any other line."""
    values = json.loads(line)
    path, span, size, mtime_ns = (values[name] for name in ("path", "span", "size", "mtime_ns"))
    reason, detail = values["reason"], values["detail"]
    if not all(isinstance(text, str) for text in (path, reason, detail)):
        raise ValueError("expected strings")
    if not (type(size) is type(mtime_ns) is int):
        raise ValueError("expected whole numbers")
    if span is not None:
        begin, end = span
        span = (float(begin), float(end))
    return BadVideo(path, span, size, mtime_ns, reason[:_LONGEST], detail[:_LONGEST])

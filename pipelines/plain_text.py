"""Text in which names of files and classes do no harm, in terminals and in tables."""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from contextlib import suppress
from types import TracebackType

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = range(0xDC80, 0xDD00)  # by which Python stands for the bytes of a name that are not UTF-8


def plain(text: str, encoding: str | None = None, *, keep: str = "") -> str:
    """`text` as one line that any terminal shows as it is: characters that are not printable become escapes.

    A file may be called by any bytes but / and NUL. Without this, a name could move the cursor, colour the screen or
    look like a line of its own. A byte that is not UTF-8 becomes ``\\xff``, its value. With `encoding`, characters that
    it lacks become escapes, too. The characters in `keep` stay.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text


def say(*lines: str) -> None:
    """Print `lines` on stderr, by `plain`. Those that can't be written are dropped: the work goes on."""
    with suppress(OSError, ValueError):
        for line in lines if sys.stderr is not None else ():
            print(plain(line, sys.stderr.encoding or "utf-8"), file=sys.stderr, flush=True)


def speak_plainly() -> None:
    """Have all that Python prints on stderr by itself go through `plain`: warnings, logs, and an error that ends it.

    Each warning is one line, and one that is logged begins like those that the commands say: `warning: ...`. Called
    where a program begins, in each of its processes.
    """

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None,
        line: object = None,
    ) -> None:  # fmt: skip
        say(f"{filename}:{lineno}: {category.__name__}: {message}")

    def fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        say(*"".join(traceback.format_exception(kind, error, trace)).splitlines())

    warnings.showwarning = show
    sys.excepthook = fail
    show_logs_plainly()


def show_logs_plainly() -> None:
    """The part of `speak_plainly` that is about logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _OneLine(logging.Formatter):
    """Log records as lines that any terminal shows as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(f"{record.levelname.lower()}: {super().format(record)}")


def valid(text: str) -> str:
    """`text` as UTF-8 can hold it: what it can't, such as bytes of a name that are not UTF-8, becomes escapes."""
    return _SURROGATE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if number in _BYTES else character.encode("unicode_escape").decode()

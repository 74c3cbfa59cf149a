"""The lines that commands print, in which names of files and classes do no harm."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from pipelines.errors import UsageError
from pipelines.output.descriptors import STDOUT
from pipelines.output.files import check_outputs
from pipelines.output.places import write_errors
from pipelines.plain_text import plain
from pipelines.plain_text import say as say_plainly

_refused: list[str] = []  # why lines beside results could not be printed


def as_time(seconds: float) -> str:
    """`seconds` as hours, minutes and seconds: 1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def counted(count: int, thing: str, things: str | None = None) -> str:
    """`count` of `thing`: "1 step", "2 steps". `things` is the plural where that is not `thing` with an s."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"


def print_line(line: str = "", stream: TextIO | None = None) -> None:
    """Print `line` on `stream` (default: stdout), by `plain`. Nothing is done where it was closed from the beginning.

    Raises BrokenPipeError where the reader of stdout has gone, UsageError where stdout can't be written, as on a full
    disk, and OSError where another stream can't.
    """
    stream = stream or sys.stdout
    if stream is None:
        return
    with write_errors(STDOUT) if stream is sys.stdout else nullcontext():
        print(plain(line, stream.encoding or "utf-8"), file=stream, flush=True)


def lines_beside(*files: Path | None, inputs: Iterable[Path] = (), others: bool = False) -> Callable[[str], None]:
    """What prints lines for the user while results are written to `files`: on stderr if one of these is stdout.

    Where a file is named, or with `others` a folder is made, that is the result: the command then goes on although
    nobody reads the lines any more, or stdout can't be written, which `refused_lines` tells afterwards. Raises
    UsageError like `check_outputs`, which `files` and `inputs` are given to.
    """
    if check_outputs(*files, inputs=inputs):
        return tell
    if not others and all(file is None for file in files):
        return print_line

    def say(line: str) -> None:
        try:
            print_line(line)
        except BrokenPipeError:
            pass
        except UsageError as error:
            _refused.append(str(error))

    return say


def refused_lines() -> str:
    """Why lines beside results could not be printed since the last call, as on a full disk; "" if all were."""
    why = _refused[0] if _refused else ""
    _refused.clear()
    return why


def quoted(*words: object) -> str:
    """`words` as one types them in a shell, with a space between two; what isn't printable as in bash's $'...'."""
    return " ".join(shlex.quote(word) if word.isprintable() else _ansi_c(word) for word in map(str, words))


def _ansi_c(word: str) -> str:
    def escaped(character: str) -> str:
        if character in "\\'":
            return f"\\{character}"
        return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))

    return "$'" + "".join(map(escaped, word)) + "'"


def tell(*lines: str) -> None:
    """Print `lines` on stderr, by `plain`. Those that can't be written are dropped: the run goes on."""
    say_plainly(*lines)

"""Ctrl-C and other signals as the end of a command, from its first moment on: also while it imports libraries.

Whatever ends it, no temporary file is left: blocks end as they do after an error, and where they can't, what
`pipelines.output.undoing` knows of is undone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from pipelines.errors import ExitCode
from pipelines.output.undoing import undo_all
from pipelines.plain_text import plain

_IMPORTER = "<frozen importlib._bootstrap"  # how the names of Python's own files for imports begin
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
MESSAGE = "interrupted"


class Terminated(KeyboardInterrupt):
    """A signal that ends processes, `number`, came. It ends all that Ctrl-C ends."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def take_interrupts(name: str) -> None:
    """Have Ctrl-C raise KeyboardInterrupt, SIGTERM and SIGHUP Terminated.

    While the process `name` imports a module, they end it at once: there libraries would swallow the exception, or make
    an error of their own of it. So does a second SIGTERM or SIGHUP. What `undone` names is undone. A SIGHUP that is
    ignored, as by nohup, stays so.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            end_at_once(f"{name}: {MESSAGE}")
        raise KeyboardInterrupt

    def ended(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, at_once)
        if _is_importing(frame):
            at_once(number, frame)
        raise Terminated(number)

    def at_once(number: int, frame: FrameType | None) -> None:
        undo_all()
        end_by_signal(number)

    signal.signal(signal.SIGINT, interrupted)
    taken = [number for number in _ENDINGS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, ended)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTER):
            return True
        frame = frame.f_back
    return False


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """A short block after which the signals that came meanwhile do what they do.

    This is for a library in C that calls Python back, which would drop an exception that a signal raises there.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *_ENDINGS):
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, lambda taken, _: came.append(taken))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for taken in came:
            signal.raise_signal(taken)


def ignore_interrupts() -> None:
    """Have Ctrl-C do nothing, and the other signals end the process at once.

    This is for the end of a process, whose work is done and whose exit code is known.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end_by_signal(number: int) -> NoReturn:
    """End the process by the signal `number`, as if it had never been taken, so that its parent sees what ended it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(ExitCode.INTERRUPTED)  # where the signal is blocked


def end_at_once(line: str) -> NoReturn:
    """End the process with the exit code of Ctrl-C and `line` on stderr, once what `undone` names is undone."""
    undo_all()
    with suppress(OSError):
        os.write(2, f"{plain(line)}\n".encode())
    os._exit(ExitCode.INTERRUPTED)

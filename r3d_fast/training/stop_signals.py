"""SIGINT and SIGTERM as a function that the training loop asks after each step."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from r3d_fast.console import tell


@contextmanager
def stop_signals(same_seconds: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came. The second signal ends the process at once.

    One that comes within `same_seconds` of the first counts as the same: Paddle's launcher sends three at a time.
    """
    came: list[float] = []

    def note(number: int, frame: Any) -> None:
        if came and time.monotonic() - came[0] < same_seconds:
            return
        if came:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        came.append(time.monotonic())
        tell("stopping after this step or evaluation; a second signal stops at once")

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # only the main thread can handle signals; in another one the caller has to
        before = {}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

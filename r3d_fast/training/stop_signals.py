"""SIGINT, SIGTERM and SIGHUP as a function that a loop asks after each step."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.plain_text import plain
from r3d_fast.console import tell
from r3d_fast.interrupt import end_at_once

_SAID = "stopping after this batch; a second signal stops at once"


@contextmanager
def stop_signals(
    same_seconds: float = 0.0, said: str = _SAID, said_at_once: str = "r3d-fast: interrupted"
) -> Iterator[Callable[[], bool]]:  # fmt: skip
    """Gives a function that says whether SIGINT, SIGTERM or SIGHUP came. The second signal ends the process
    at once, with exit code 130, as Ctrl-C does. A SIGHUP that is ignored, as by nohup, stays so.

    One that comes within `same_seconds` of the first counts as the same: Paddle's launcher sends three at a time.
    `said` is told when the first one comes, `said_at_once` when the second one does.
    """
    came: list[float] = []

    def note(number: int, frame: Any) -> None:
        if came and time.monotonic() - came[0] < same_seconds:
            return
        if came:
            end_at_once(plain(said_at_once))
        came.append(time.monotonic())
        if said:
            tell(said)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:  # only the main thread can handle signals; in another one the caller has to
        before = {}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

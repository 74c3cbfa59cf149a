"""Blocks in which C++ code that prints by itself is not heard."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def native_output_hidden() -> Iterator[None]:
    """A block in which nothing reaches stdout or stderr, whoever prints it; for a moment in which nobody else does.

    Paddle says which passes it runs, straight to the file descriptors: results would have that between them.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()
    saved: list[tuple[int, int]] = []
    with suppress(OSError):  # a process without them: nothing to hide
        saved = [(number, os.dup(number)) for number in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in saved:
            os.dup2(null, number)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        ctypes.CDLL(None).fflush(None)
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(null)

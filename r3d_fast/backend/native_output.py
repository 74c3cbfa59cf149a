"""Hides what C++ code prints by itself."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def native_output_hidden() -> Iterator[None]:
    """A block in which nothing that this process prints reaches stdout or stderr. Keep it short.

    Paddle prints the passes that it runs straight to the file descriptors, where they would mix with our results. The
    output of all threads is lost meanwhile.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the stream is closed
            stream.flush()
    saved: list[tuple[int, int]] = []
    with suppress(OSError):  # the process has no stdout or stderr to hide
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

"""A wall clock that is set back and forth, by a library that stands before those of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Every other look at the wall clock shows the time of an hour ago.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int looks;
    __typeof__(&clock_gettime) real = (__typeof__(&clock_gettime))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME && __sync_fetch_and_add(&looks, 1) % 2)
        now->tv_sec -= 3600;
    return code;
}
"""


def with_jumping_clock(folder: Path) -> dict[str, str]:
    """The environment of a process whose wall clock jumps. `folder` is a new one, for the library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: cc or gcc")
    folder.mkdir()
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return {**os.environ, "LD_PRELOAD": str(library)}

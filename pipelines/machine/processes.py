"""Processes: what running ones use, read from /proc; the start of our own as programs, and their end with their parent.

Workers are started as programs of their own instead of by multiprocessing, which would run the user's script again. So
a script needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipelines.errors import ExitCode

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOKS, _LOOK_SECONDS = 5, 0.01  # how often, and how far apart, a process is looked at
_END_SECONDS = 5.0  # a process that is killed takes no longer to end, unless the kernel can't end it


def tree_cpu_seconds() -> float:
    """The CPU time in seconds that this process and its descendants, of those still running, have used so far."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # the process has just ended
                continue
            pid = int(folder.name)
            parents.setdefault(int(fields[1]), []).append(pid)
            ticks[pid] = int(fields[11]) + int(fields[12])
    total, left = 0, [os.getpid()]
    while left:
        pid = left.pop()
        total += ticks.get(pid, 0)
        left += parents.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def own_memory(pid: int | None = None) -> int:
    """The bytes of memory that process `pid` (default: this one) does not share with other processes.

    Raises OSError if there is no process `pid`.
    """
    for line in (_PROC / str(pid or os.getpid()) / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def mapped_memory() -> int:
    """The bytes of address space that this process has mapped, which is what RLIMIT_AS limits."""
    return int((_PROC / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def bytes_read(pid: int) -> int:
    """The bytes that process `pid` has read so far, from whatever it reads; 0 where the system does not tell."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.split()[1])
    return 0


def is_at_work(pid: int) -> bool:
    """Whether process `pid` uses a CPU now, and does not wait, such as for a disk; False where there is none."""
    for _ in range(_LOOKS):
        with suppress(OSError, IndexError):
            if (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] == "R":
                return True
        time.sleep(_LOOK_SECONDS)
    return False


def open_files(pid: int) -> int:
    """The number of files that process `pid` has open. Raises OSError if there is no process `pid`."""
    return len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208 - only counted


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends in any way, also by SIGKILL.

    For `preexec_fn` of subprocess: it holds for the program that is started then, not for what that one starts.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start_program(main: str, descriptor: int, *more: int) -> subprocess.Popen[bytes]:
    """A new Python process that runs `main`, such as "pipelines.workers.worker.main", with `descriptor` and `more`.

    It has the import paths and warning filters of this process, and the open files `descriptor` and `more`. What Python
    prints in it by itself goes through `plain`. It ends when the other end of the socket `descriptor` is closed, also
    by the end of this process. It has its own session, so that Ctrl-C and a closed terminal reach only the parent,
    which then ends it. Raises OSError where the system allows no more processes.
    """
    module, _, function = main.rpartition(".")
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - a string is wanted
    arguments = ", ".join(map(str, (descriptor, *more)))
    code = (
        f"import sys; sys.path[:] = {paths!r}; from pipelines.plain_text import speak_plainly; speak_plainly(); "
        f"from {module} import {function} as main; from {__name__} import end_with_other_side; "
        f"end_with_other_side({descriptor}); main({arguments})"
    )
    flags = [f"-W{option}" for option in sys.warnoptions]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        pass_fds=(descriptor, *more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that is about to end by itself, for some seconds at most."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)


def end_process(process: subprocess.Popen[bytes], *, at_once: bool = True) -> str:
    """End `process`, and tell how it ended, as the verb of a sentence, such as "was ended by SIGSEGV".

    One that is about to end by itself is not ended `at_once`, so that what is told is its own reason. The kernel does
    not end a process in a call that waits for a disk or a server which does not answer: it is left then.
    """
    if not at_once:
        wait_for_end(process)
    process.kill()
    wait_for_end(process)
    code = process.returncode
    if code is None:
        return "can't be ended: it waits for a disk or a server"
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):  # a signal of real-time work has no name
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def end_with_other_side(descriptor: int) -> None:
    """End this process when the other end of the socket `descriptor` is closed, even in a call that never returns."""
    poll = select.poll()
    poll.register(descriptor, 0)  # with mask 0, poll reports only that the other end was closed

    def watch() -> None:
        poll.poll()
        os._exit(ExitCode.INTERNAL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()

"""Takes from a process that decodes what that does not need, so that a file that misleads the decoder can do less.

Only limits of POSIX and "no new privileges" of Linux are used. They need no library, and hold on every system that we
run on. What they can't take away are other files that the user may read, and the network.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from contextlib import suppress

from pipelines.machine.processes import mapped_memory

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_MEMORY = 4 << 30  # bytes; 20 reference frames of 8192x4352 px, the most that is decoded by default, take 1.1e9
_FILE = 16 << 20  # bytes that a file may grow to: what is said on stderr goes to a file, too

_memory_limit: int | None = None  # what was set here last


def give_up_rights(memory: int = _MEMORY) -> None:
    """Limit this process: `memory` bytes more than it has mapped now, small files, no core dump, no setuid.

    A decoder that wants more memory gets an error, as of a broken video. It takes less than a millisecond. All but the
    limit of memory hold for good; a process that begins other work calls this again, for the memory of that.
    """
    _limit_memory(mapped_memory() + memory)
    _limit(resource.RLIMIT_FSIZE, _size_of_stderr() + _FILE)
    _limit(resource.RLIMIT_CORE, 0)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit_memory(most: int) -> None:
    """Set the limit of memory to `most`, also if it was set here before; one that others have set lower stays."""
    global _memory_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    others = [limit for limit in (soft, hard) if limit not in (resource.RLIM_INFINITY, _memory_limit)]
    _memory_limit = min([most, *others])
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_memory_limit, hard))


def _limit(kind: int, most: int) -> None:
    """Lower a limit of this process to `most`; one that is lower already stays."""
    soft, hard = resource.getrlimit(kind)
    known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    lowest = min([most, *known])
    with suppress(ValueError, OSError):  # a system that does not allow it: the other limits hold
        resource.setrlimit(kind, (lowest, lowest))


def _size_of_stderr() -> int:
    """The size of the file that stderr is written to; 0 where that is no file."""
    with suppress(OSError):
        status = os.fstat(2)
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0

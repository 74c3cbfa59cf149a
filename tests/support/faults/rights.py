"""Processes that have no more rights than the permissions of files give them, also where a superuser runs the tests."""

from __future__ import annotations

import sys

# Runs the command after it, which may open only what the permissions of files allow, also for a superuser.
_WITHOUT_RIGHTS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right, 0, 0, 0):
        sys.exit("these rights can't be dropped here")
os.execv(sys.argv[1], sys.argv[1:])
"""


def without_rights(command: list[str]) -> list[str]:
    """The command line that runs `command` as one who may open only what the permissions of files allow."""
    return [sys.executable, "-c", _WITHOUT_RIGHTS, *command]

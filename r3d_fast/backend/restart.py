"""Starts a command again where Paddle 2.6 would not find its CUDA libraries, with a folder of links to them.

LD_LIBRARY_PATH is read when a process starts, so that it is too late to set it in the process that needs it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from pipelines.machine.cuda_libraries import (
    SEARCH_PATH,
    folder_name,
    library_files,
    link_folder,
    needing_paddle,
    problems,
)
from pipelines.machine.driver_library import has_driver

# Without these no model of r3d-fast is computed. The others are for single operations, several GPUs and compilers.
OF_EVERY_MODEL = ("libcudnn.so", "libcublas.so", "libcublasLt.so")
_RESTARTED = "R3D_FAST_RESTARTED"  # the number of the process that was started again, which stays the same


def restart_with_cuda_libraries(commands: Container[str]) -> None:
    """Start this process again if Paddle 2.6 is installed for GPUs, and only so finds the wheels of its libraries.

    That is done at most once, and only in a process that was started as one of `commands`: the name of a script or of
    a module. The new program has the arguments, the process number and the open files of this one.
    """
    if not needing_paddle() or _program() not in commands or os.environ.get(_RESTARTED) == str(os.getpid()):
        return
    searched = _lacking_path()
    if not searched or not sys.executable:
        return
    sys.stdout.flush()
    # Not the first word of the command, which may be a bare "python": Python finds its environment by it.
    arguments = [sys.executable, *sys.orig_argv[1:]]
    with suppress(OSError):  # as when the environment is too long: then go on as without these wheels
        os.execve(sys.executable, arguments, {**os.environ, SEARCH_PATH: searched, _RESTARTED: str(os.getpid())})


def what_paddle_lacks(names: Container[str] | None = None) -> str:
    """What Paddle 2.6 does not find in this process for its computations on the GPU, and what to do, in one line.

    Empty if it finds all, or all of the libraries `names`, and on a machine without a driver, where it looks for
    nothing.
    """
    if not needing_paddle() or not has_driver():
        return ""
    first = next((found for found in problems() if names is None or found.name in names), None)
    return f"Paddle can't compute on the GPU: {first.name}: {first.problem}; {how_to_find()}" if first else ""


def how_to_find() -> str:
    """The line for a shell with which Paddle 2.6 finds its CUDA libraries in programs that are started there."""
    searched = _lacking_path()
    return f"export {SEARCH_PATH}={shlex.quote(searched)}" if searched else "pip install 'r3d-fast[cuda11]'"


def _lacking_path() -> str:
    """The LD_LIBRARY_PATH with which Paddle finds the libraries of the installed wheels.

    Empty if it finds all of them as it is, and if there are no wheels or no place for the links.
    """
    searched = os.environ.get(SEARCH_PATH, "")
    files = library_files()
    if not files or folder_name(files) in (Path(part).name for part in searched.split(":")):
        return ""
    if next(problems(), None) is None:
        return ""
    folder = link_folder(files)
    return ":".join(filter(None, (str(folder), searched))) if folder else ""


def _program() -> str:
    """The name of the module that runs as `python -m MODULE`, else that of the script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).name

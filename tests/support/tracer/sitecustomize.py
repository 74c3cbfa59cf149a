"""Notes which functions of the project are called by a Python process and by the processes that it starts.

Python imports this module by itself if this folder is on its path. On the first call of each function a line is written
to the file R3D_TRACE: the process id, and `path:qualified name`. R3D_ROOT is the folder of the project.
"""

from __future__ import annotations

import os
import sys
import threading
from types import CodeType, FrameType


def _note_calls(trace: str, root: str) -> None:
    file = os.open(trace, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    seen: set[CodeType] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code not in seen:
            seen.add(code)
            if code.co_filename.startswith(root):
                path = code.co_filename.removeprefix(root)
                os.write(file, f"{os.getpid()} {path}:{frame.f_code.co_qualname}\n".encode())

    sys.setprofile(profile)
    threading.setprofile(profile)


if "R3D_TRACE" in os.environ:
    _note_calls(os.environ["R3D_TRACE"], f"{os.environ['R3D_ROOT']}/")

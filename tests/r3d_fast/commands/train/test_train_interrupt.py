"""Ctrl-C in the first moments of a command: exit code 130, one line, no traceback, and no folder is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from waiting import cpu_seconds, wait_until

from pipelines.index.video_index import VideoIndex

_PROGRAM = """
import sys
from r3d_fast.__main__ import main
print("ready", flush=True)
sys.argv = ["r3d-fast", *sys.argv[1:]]
main()
"""


def interrupted(words: list[str], seconds: float, cwd: Path) -> tuple[int, list[str]]:
    """(exit code, lines on stderr) of a command to which Ctrl-C comes when it has used `seconds` of CPU time."""
    command = [sys.executable, "-c", _PROGRAM, *words]
    with subprocess.Popen(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(tiny.REPO)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        begin = cpu_seconds(child.pid)
        wait_until(lambda: cpu_seconds(child.pid) >= begin + seconds)
        child.send_signal(signal.SIGINT)
        lines = child.stderr.read().splitlines()
    return child.returncode, [line for line in lines if line]


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("doctor", 0.05), ("train videos", 0.1), ("train videos", 0.6), ("train videos", 0.9), ("predict nothing a", 0.2)],
)
def test_ctrl_c_is_one_line_also_while_libraries_are_imported(
    index: VideoIndex, tmp_path: Path, words: str, seconds: float
) -> None:
    (tmp_path / "videos.r3dindex").write_bytes(index.path.read_bytes())
    (tmp_path / "videos").symlink_to(index.root)
    code, said = interrupted(words.split(), seconds, tmp_path)
    assert code == 130, said
    assert said[-1] == "r3d-fast: interrupted"
    assert not any("Traceback" in line or "Exception" in line for line in said), said
    assert not (tmp_path / "runs").exists()


_ENDING = """
import atexit, sys, time
from r3d_fast.__main__ import main
atexit.register(lambda: (print("ending", flush=True), time.sleep(1)))
sys.argv = ["r3d-fast", "config", "--help"]
main()
"""


def test_ctrl_c_is_ignored_while_the_process_ends(tmp_path: Path) -> None:
    """Libraries take a second or two to end: what was asked for is done, and the exit code is that of the command."""
    with subprocess.Popen(
        [sys.executable, "-c", _ENDING], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tiny.REPO)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        while child.stdout.readline() not in ("ending\n", ""):
            pass
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")

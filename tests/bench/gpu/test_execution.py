"""One part of `bench gpu` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench_process import REPO
from waiting import PATIENCE, wait_until

from bench.gpu.execution import log_file, run_part
from bench.gpu.plan import Part

STUBBORN = (
    "import os, pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGINT, lambda *_: pathlib.Path(sys.argv[1] + '.asked').touch())\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(300)"
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def python(code: str, **more: object) -> Part:
    return Part("kernels", "kernels", (sys.executable, "-c", code), 1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "state", "number", "says"),
    [
        ("print('one'); print('two'); print()", "done", 0, "two"),
        ("pass", "done", 0, "it said nothing"),
        ("raise ValueError('no such kernel')", "failed", 1, "ValueError: no such kernel"),
        ("print('x' * 100000); raise SystemExit(4)", "failed", 4, "x" * 300),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "failed",
            -11,
            "its process was ended by signal 11",
        ),
    ],
)
def test_how_it_ends_and_what_it_said_last(code: str, state: str, number: int, says: str, out: Path) -> None:
    part = python(code)
    ending = run_part(part, out)
    assert (ending.state, ending.code, ending.step, ending.command) == (state, number, "kernels", part.shown)
    assert ending.says.startswith(says)
    assert log_file(out, part).read_text().startswith(f"{part.shown.splitlines()[0]}")


def test_it_has_the_environment_and_folder_of_the_part_and_no_stdin(out: Path) -> None:
    code = "import os, sys; print(os.environ['FLAGS_x'], os.getcwd(), repr(sys.stdin.read()))"
    ending = run_part(python(code, environment={"FLAGS_x": "7"}, folder=out), out)
    assert ending.says == f"7 {out} ''"


def test_a_program_that_is_not_there(out: Path) -> None:
    ending = run_part(Part("x", "x", (str(out / "nothing"),), 1), out)
    assert (ending.state, ending.code, ending.says) == ("failed", None, "can't be started: No such file or directory")


def test_a_second_ctrl_c_does_not_wait(out: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom bench.gpu.execution import run_part\n"
        "from bench.gpu.plan import Part\n"
        "run_part(Part('x', 'x', (sys.executable, '-c', *sys.argv[1:3]), None), Path(sys.argv[3]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    file = out / "pid"
    command = [sys.executable, "-c", code, STUBBORN, str(file), str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: file.is_file() and bool(file.read_text()))
    process.send_signal(signal.SIGINT)
    wait_until(Path(f"{file}.asked").exists, "asking the part to end")
    assert process.poll() is None  # it waits for the part to end by itself
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cuda_wheels import REPO, environment, installed, wheels
from stand_ins import cuda
from waiting import little_work

from pipelines.machine.cuda_libraries import needing_paddle

# What pip writes for the entry point, here with a report before and after.
SCRIPT = """#!{python}
import json, os, signal, sys
from pipelines.machine.cuda_libraries import problems
from r3d_fast.backend.restart import restart_with_cuda_libraries
print("start", os.getpid(), flush=True)
restart_with_cuda_libraries(("r3d-fast",))
print(json.dumps([sys.argv[1:], sys.prefix, os.environ.get("LD_LIBRARY_PATH"), [found.name for found in problems()],
                  "stop" in sys.argv or sys.stdin.read()]), flush=True)
if "stop" in sys.argv:
    signal.pause()
sys.exit(7)
"""
# Run by each Python that starts.
COUNT = """
import os
if "STARTS" in os.environ:
    with open(os.environ["STARTS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
"""


def clean(**variables: str) -> dict[str, str]:
    """This environment without what says where libraries and modules are, and that this is a worker of xdist."""
    left_out = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTEST_XDIST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, **variables}


class Env:
    """An environment with stand-ins for the GPU wheel of Paddle 2.6 and, if wanted, the wheels of its libraries."""

    def __init__(self, folder: Path, libraries: Path | None, paddle: str = "paddlepaddle-gpu-2.6.2") -> None:
        installed(folder / "paddle", *paddle.rsplit("-", 1))
        (folder / "paddle" / "paddle").mkdir()
        (folder / "paddle" / "paddle" / "__init__.py").touch()
        self.python = environment(folder / "venv", folder / "paddle", *([libraries] if libraries else []))
        (site,) = (folder / "venv").glob("lib/*/site-packages")
        (site / "sitecustomize.py").write_text(COUNT, encoding="utf-8")
        self.script = self.python.parent / "r3d-fast"
        self.script.write_text(SCRIPT.format(python=self.python), encoding="utf-8")
        self.script.chmod(0o755)
        self.prefix = folder / "venv"

    def run(self, *command: object, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        return subprocess.run(words, input=stdin, env=clean(**variables), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels(tmp_path_factory.mktemp("libraries"))


@pytest.fixture(scope="module")
def env(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Env:
    return Env(tmp_path_factory.mktemp("env"), libraries)


def report(done: subprocess.CompletedProcess[str]) -> tuple[list[str], Any]:
    """(process numbers of the starts, what the script reported)"""
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    return [line.split()[1] for line in lines[:-1]], json.loads(lines[-1])


def test_started_again_with_the_links(env: Env, tmp_path: Path) -> None:
    starts, (argv, prefix, searched, lacking, stdin) = report(
        env.run(env.script, "a b", "--c='d'", "", stdin="one\ntwo", LD_LIBRARY_PATH="/some/where")
    )
    assert len(starts) == 2
    assert len(set(starts)) == 1  # the same process
    assert argv == ["a b", "--c='d'", ""]
    assert prefix == str(env.prefix)
    assert stdin == "one\ntwo"
    assert lacking == []
    folder, before = searched.split(":")
    assert before == "/some/where"
    assert Path(folder).parent == env.prefix / "share" / "r3d-fast"


def test_not_again_in_its_child_processes(env: Env) -> None:
    _, (_, _, searched, _, _) = report(env.run(env.script))
    starts, (_, _, inherited, lacking, _) = report(env.run(env.script, LD_LIBRARY_PATH=searched))
    assert (len(starts), inherited, lacking) == (1, searched, [])


def test_at_most_once(env: Env) -> None:
    # A shell that takes the variable away again, as sudo and programs with more rights than their user do.
    again = f'unset LD_LIBRARY_PATH; export R3D_FAST_RESTARTED=$$; exec {env.script} "$@"'
    starts, (_, _, searched, lacking, _) = report(env.run("sh", "-c", again))
    assert (len(starts), searched) == (1, None)
    assert "libcudnn.so" in lacking


def test_a_signal_reaches_the_new_program(env: Env) -> None:
    with subprocess.Popen([env.script, "stop"], env=clean(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(3)]
        assert lines[0] == lines[1] == f"start {child.pid}\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("command", [["r3d_fast"], ["r3d_fast.cli"], ["bench.cli"]])
def test_the_commands_of_this_project(env: Env, tmp_path: Path, command: list[str]) -> None:
    count = tmp_path / "starts"
    done = env.run(env.python, "-W", "error", "-m", *command, "--help", STARTS=str(count))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(count.read_text().split()) == 2
    assert env.run(env.python, "-m", *command, "no-such-command").returncode == 2


@pytest.mark.parametrize(("options", "times"), [((), 2), (("-n", "1"), 3)])
def test_pytest_here_is_started_again_and_its_workers_are_not(
    env: Env, tmp_path: Path, options: tuple[str, ...], times: int
) -> None:
    count = tmp_path / "starts"
    # None of its own tests is taken, so that it ends with pytest's code for that.
    file = REPO / "tests" / "pipelines" / "test_specs.py"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "-k", "nothing_of_that_name", file]
    done = env.run(env.python, *command, STARTS=str(count), PYTHONPATH=str(REPO))
    assert done.returncode == 5, done.stdout + done.stderr
    assert len(count.read_text().split()) == times


def test_never_in_a_program_of_somebody_else(env: Env, tmp_path: Path) -> None:
    count, program = tmp_path / "starts", tmp_path / "mine.py"
    program.write_text("import sys\nfrom r3d_fast.cli import main\nsys.argv[1:] = ['--help']\nmain()\n")
    assert env.run(env.python, program, STARTS=str(count)).returncode == 0
    assert len(count.read_text().split()) == 1


def test_not_where_it_would_not_help(libraries: Path, tmp_path: Path) -> None:
    for name, paddle, packages in (
        ("cpu", "paddlepaddle-2.6.2", libraries),
        ("3", "paddlepaddle-gpu-3.3.1", libraries),
        ("alone", "paddlepaddle-gpu-2.6.2", None),
    ):
        other = Env(tmp_path / name, packages, paddle)
        starts, (_, _, searched, _, _) = report(other.run(other.script))
        assert (len(starts), searched) == (1, None)
        assert not (other.prefix / "share").exists()


def test_not_where_the_system_has_the_libraries(env: Env, libraries: Path, tmp_path: Path) -> None:
    for path in libraries.glob("nvidia/*/lib/*.so.*"):
        (tmp_path / path.name.partition(".so")[0]).with_suffix(".so").symlink_to(path)
    starts, (_, _, searched, lacking, _) = report(env.run(env.script, LD_LIBRARY_PATH=str(tmp_path)))
    assert (len(starts), searched, lacking) == (1, str(tmp_path), [])


def test_one_line_in_a_program_of_somebody_else(env: Env, tmp_path: Path) -> None:
    """Where there is a driver, `import_paddle` says what to set; with that it is silent."""
    source = tmp_path / "driver.c"
    source.write_text("int cuInit(unsigned flags) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    code = "from r3d_fast.backend.paddle import import_paddle; import_paddle()"
    said = env.run(env.python, "-c", code, LD_LIBRARY_PATH=str(tmp_path)).stderr
    (line,) = [line for line in said.splitlines() if "LD_LIBRARY_PATH" in line]
    assert line.startswith("Paddle can't compute on the GPU: libcudnn.so: not found; export LD_LIBRARY_PATH=")
    searched = line.partition("LD_LIBRARY_PATH=")[2]
    assert searched.split(":")[1:] == [str(tmp_path)]
    assert "LD_LIBRARY_PATH" not in env.run(env.python, "-c", code, LD_LIBRARY_PATH=searched).stderr
    assert "LD_LIBRARY_PATH" not in env.run(env.python, "-c", code).stderr  # no driver


CHOOSE = """
import sys, types
sys.modules["paddle"] = paddle = types.ModuleType("paddle")
paddle.is_compiled_with_cuda, paddle.set_device = (lambda: False), (lambda device: None)
from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.paddle import choose_device
try:
    print(choose_device(sys.argv[1]))
except EnvironmentProblem as error:
    print(error)
"""


@pytest.mark.parametrize("wanted", ["gpu", "auto"])
def test_a_gpu_that_paddle_lacks_libraries_for_is_refused_in_one_line(env: Env, tmp_path: Path, wanted: str) -> None:
    """In a program of somebody else; training there on the CPU without a word would be worse."""
    cuda(tmp_path)
    done = env.run(env.python, "-c", CHOOSE, wanted, LD_LIBRARY_PATH=str(tmp_path))
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("Paddle can't compute on the GPU: libcudnn.so: not found; export LD_LIBRARY_PATH=")
    command, _, said = line.partition("export LD_LIBRARY_PATH=")[2].partition("   # ")
    assert command.split(":")[1:] == [str(tmp_path)]
    assert said == "before this program starts; or use device cpu"
    assert env.run(env.python, "-c", CHOOSE, "auto", LD_LIBRARY_PATH=command).stdout == "cpu\n"  # the stand-in's build
    assert env.run(env.python, "-c", CHOOSE, "cpu", LD_LIBRARY_PATH=str(tmp_path)).stdout == "cpu\n"


def test_libraries_that_only_some_computations_need_are_no_reason(env: Env, libraries: Path, tmp_path: Path) -> None:
    cuda(tmp_path)
    for path in libraries.glob("nvidia/*/lib/*.so.*"):
        if "nccl" not in path.name:
            (tmp_path / path.name.partition(".so")[0]).with_suffix(".so").symlink_to(path)
    done = env.run(env.python, "-c", CHOOSE, "auto", LD_LIBRARY_PATH=str(tmp_path))
    assert done.stdout == "cpu\n"
    assert "libnccl.so: not found" in done.stderr


def test_nothing_to_do_costs_nothing() -> None:
    with little_work(1.0):
        for _ in range(100):
            needing_paddle()


@pytest.mark.skipif(needing_paddle() != "2.6.2", reason="needs the wheel of paddlepaddle-gpu 2.6.2")
def test_the_real_wheel_computes_with_cudnn_8_9_after_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[0] = 'r3d-fast'\n"
        "from r3d_fast.backend.restart import restart_with_cuda_libraries\n"
        "restart_with_cuda_libraries(('r3d-fast',))\n"
        "from r3d_fast.backend.paddle import import_paddle\n"
        "core = import_paddle().base.core\n"
        "print(core.cudnn_version(), core.nccl_version())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8906", "21903"], done.stderr

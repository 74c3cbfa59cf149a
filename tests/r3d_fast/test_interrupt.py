"""Signals end each command without a file or a folder of its own left behind, and the parent sees what ended it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from waiting import wait_until
from written import REPO, names

from pipelines.index.video_index import VideoIndex

_SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
# Writes a file and a folder by the house's own means, within what a command does, until a signal comes.
_WRITES = """
import sys, time
from pathlib import Path
import r3d_fast.cli
from r3d_fast.__main__ import main
import click
from pipelines.output.files import new_file
from pipelines.output.folders import make_once, new_folder
from pipelines.output.temporary import temporary_folder

def wait(folder):
    (folder / "f").write_text("x")
    print("ready", flush=True)
    if "import" in sys.argv:
        import slow_module
    time.sleep(60)

@click.command("hold")
@click.argument("mode")
def hold(mode):
    root = Path.cwd()
    with temporary_folder() as a, new_file(root / "out.json") as b, new_folder(root / "made" / "folder") as c:
        (a / "f").write_text("x"), b.write(b"x"), (c / "f").write_text("x")
        make_once(root / "deep" / "once", ".marker", {}, "thing", wait)

r3d_fast.cli.cli.add_command(hold)
main()
"""


def started(words: list[str], cwd: Path, program: str | None = None) -> subprocess.Popen[str]:
    """A command whose temporary files go to cwd/tmp, which is made."""
    (cwd / "tmp").mkdir()
    (cwd / "slow_module.py").write_text("import time\ntime.sleep(60)\n")
    command = [sys.executable, *(["-c", program] if program else ["-m", "r3d_fast"]), *words]
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{cwd}", "TMPDIR": str(cwd / "tmp")}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def ended(child: subprocess.Popen[str], number: int) -> str:
    """What the command said on stderr, once it is ended by the signal `number`."""
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == (130 if number == signal.SIGINT else -number), err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("mode", ["sleep", "import"])
@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_leaves_no_temporary_file_also_within_an_import(tmp_path: Path, number: int, mode: str) -> None:
    child = started(["hold", mode], tmp_path, _WRITES)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    if mode == "import":
        time.sleep(0.2)  # the line comes just before the import; whichever the signal meets, the result is the same
    err = ended(child, number)
    if mode == "sleep":
        name = signal.Signals(number).name
        assert err.splitlines()[-1] == ("r3d-fast: " + ("interrupted" if name == "SIGINT" else f"ended by {name}"))
    assert [name for name in names(tmp_path) if name not in ("slow_module.py", "__pycache__")] == ["tmp"]
    assert names(tmp_path / "tmp") == []


def test_a_second_sigterm_ends_the_process_at_once_and_leaves_nothing_either(tmp_path: Path) -> None:
    waits = "print('ready', flush=True)\n        time.sleep(60)"
    says = "print('taken', flush=True)\n        time.sleep(60)"
    program = _WRITES.replace('    print("ready", flush=True)\n', "").replace(
        "time.sleep(60)", f"\n    try:\n        {waits}\n    finally:\n        {says}"
    )
    child = started(["hold", "sleep"], tmp_path, program)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "taken\n"  # two signals that come at the same time are one
    ended(child, signal.SIGTERM)
    assert [name for name in names(tmp_path) if name not in ("slow_module.py", "__pycache__")] == ["tmp"]
    assert names(tmp_path / "tmp") == []


def test_nohup_keeps_a_command_going(tmp_path: Path) -> None:
    program = (
        f"import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n{_WRITES.replace('sleep(60)', 'sleep(0.5)')}"
    )
    child = started(["hold", "sleep"], tmp_path, program)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert (tmp_path / "out.json").read_text() == "x"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return tiny.make_tiny(tmp_path_factory.mktemp("signals"))


def _predict(data: VideoIndex, folder: Path) -> list[object]:
    model = tiny.untrained(folder / "m", classes=data.classes)
    return ["predict", model, data.root, "--json", folder / "p.json", "--device", "cpu"]


def _evaluate(data: VideoIndex, folder: Path) -> list[object]:
    model = tiny.untrained(folder / "m", classes=data.classes)
    more = tiny.options(tiny.overrides(data, "loader.batch_size=1", "clip.views=200"))
    return ["eval", "-c", "demo", "--weights", model, *more, "--json", folder / "e.json"]


def _demo(data: VideoIndex, folder: Path) -> list[object]:
    return ["demo", "--dir", folder / "demo"]


def _index(data: VideoIndex, folder: Path) -> list[object]:
    root = folder / "videos"
    shutil.copytree(data.root, root)
    video = next(root.rglob("*.avi"))
    for number in range(200):
        shutil.copy(video, video.with_name(f"more{number}.avi"))
    return ["data", "index", root, "--index", folder / "i", "--workers", "1", "--json", folder / "i.json"]


@pytest.mark.parametrize("command", [_predict, _evaluate, _demo, _index])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_works_is_ended_and_leaves_no_temporary_file(
    data: VideoIndex, tmp_path: Path, number: int, command: Callable[[VideoIndex, Path], list[object]]
) -> None:
    words = list(map(str, command(data, tmp_path)))
    before = names(tmp_path)
    child = started(words, tmp_path)
    hidden: list[Path] = []

    def has_begun() -> bool:
        assert child.poll() is None, child.communicate()
        hidden[:] = [*tmp_path.rglob(".*.tmp"), *(tmp_path / "tmp").iterdir()]
        return bool(hidden)

    wait_until(has_begun, "a temporary file")
    ended(child, number)
    assert not any(path.exists() for path in hidden)
    left = {*names(tmp_path), *names(tmp_path / "tmp")} - {*before, "tmp", "slow_module.py"}
    assert left == set()

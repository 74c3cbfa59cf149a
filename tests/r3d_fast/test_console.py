"""What commands print: names can't harm the terminal, and what is printed can be read, copied and typed."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from clips import write_stamped_video
from terminals import Terminal
from written import REPO

from pipelines.plain_text import plain
from r3d_fast.cli import cli, run_cli
from r3d_fast.console import counted, print_line, quoted, tell

HOSTILE = "x\x1b[2J\x1b]0;owned\x07\r\n\u202egnp\udcff"


def test_what_is_not_printable_becomes_escapes() -> None:
    assert plain("Zürich 跳水 [red]") == "Zürich 跳水 [red]"
    assert plain(HOSTILE) == r"x\x1b[2J\x1b]0;owned\x07\r\n\u202egnp\xff"
    assert plain("Zürich", "ascii") == r"Z\xfcrich"


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(count, "step") for count in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert [counted(count, "class", "classes") for count in (1, 3)] == ["1 class", "3 classes"]


def test_a_stream_that_lacks_a_character_gets_its_escape() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_line("Zürich \x1b[31m", stream)
    stream.seek(0)
    assert stream.read() == "Z\\xfcrich \\x1b[31m\n"


def test_telling_keeps_lines_and_outlives_a_closed_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell("one\x1b\ntwo", "three")
    assert capsys.readouterr().err == "one\\x1b\\ntwo\nthree\n"
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    tell("nobody reads this")


@pytest.mark.parametrize("word", ["runs/a", "my videos", "it's", "a\nb\x1b'c\\", "Zürich", "\udcff2", ""])
def test_a_printed_command_is_what_a_shell_takes(word: str) -> None:
    command = quoted("printf", "%s", word)
    assert command.isprintable()
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
    if word.isprintable():
        assert shlex.split(command)[2] == word


def test_hostile_names_do_nothing_to_the_output_of_data_index(tmp_path: Path) -> None:
    for name in ("[/bold]\x1b[2Jclass", "other"):
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        write_stamped_video(folder / "a\x1b[31m.avi", num_frames=4)
        (folder / "broken\x1b[2J.mp4").write_bytes(b"no video")
    done = subprocess.run(
        [sys.executable, "-m", "r3d_fast", "data", "index", str(tmp_path / "videos"), "--workers", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert r"[/bold]\x1b[2Jclass" in done.stdout
    assert r"broken\x1b[2J.mp4" in done.stdout


def test_names_in_a_bar_are_neither_markup_nor_commands() -> None:
    program = (
        "from r3d_fast.progress import Progress\n"
        "with Progress('[red]a\\x1b[2J', 2) as bar:\n"
        "    bar.say('above [/x] \\x1b[2J')\n"
        "    bar.note('[/bold] \\x07')\n"
        "    bar.step('[blue]b')\n"
    )
    with Terminal([sys.executable, "-c", program], columns=130, lines=10) as terminal:
        assert terminal.wait() == 0
        shown = terminal.display
    assert shown[0] == r"above [/x] \x1b[2J"
    assert shown[1].startswith(r"[red]a\x1b[2J ")
    assert "[blue]b" in shown[1]


def test_hostile_names_do_nothing_to_what_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ESC, line breaks, bidi controls and bytes that are no UTF-8, in names of files, classes, options and configs."""
    name = "x\x1b[31m\ny\r\u202ez\udcff"
    root, word = tmp_path / name, f"{tmp_path}/{name}"
    monkeypatch.chdir(tmp_path)
    for label in (name, "b"):
        (root / "videos" / label).mkdir(parents=True)
        write_stamped_video(root / "videos" / label / f"{name}.avi", num_frames=4)
    (root / "videos" / "b" / f"bad{name}.avi").write_bytes(b"no video")
    (root / "c.yaml").write_text("clip: {num_frames: x}\nnot_a_key: 1\n")
    for words in (
        ["data", "index", f"{word}/videos"], ["data", "check", f"{word}/videos"], ["data", "check", f"{word}/none"],
        ["predict", f"{word}/m", f"{word}/v.avi"], ["train", f"{word}/nothing"], ["eval", "--run", f"{word}/run"],
        ["report", f"{word}/run"], ["watch", "--once", f"{word}/run"], ["config", "show", f"{word}/c.yaml"],
        ["config", "show", word], ["config", "keys", word], ["export", f"{word}/m", f"{word}/out"],
        ["train", "-c", "demo", "-o", f"{word}=1"], [word], ["models", f"--{word}"],
        ["models", "--json", f"{word}/a/b"],
        ["demo", "--dir", f"{word}/c.yaml"], ["import-weights", f"{word}/w.pth", f"{word}/o"],
    ):  # fmt: skip
        assert run_cli(cli, words, "r3d-fast") in range(6)
        shown = "".join(capfd.readouterr())
        assert all(line.isprintable() for line in shown.split("\n")), (words, shown)
        assert "internal error" not in shown, shown
        assert not any(line.startswith("y") for line in shown.split("\n")), shown


def test_what_libraries_log_is_one_line(tmp_path: Path) -> None:
    program = (
        "import logging, click\nfrom r3d_fast.cli import cli, run_cli\n"
        "@click.command()\ndef log() -> None:\n    logging.getLogger('x').warning('a\\x1b[2J\\nr3d-fast: b')\n"
        "cli.add_command(log)\nrun_cli(cli, ['log'], 'r3d-fast')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == "warning: a\\x1b[2J\\nr3d-fast: b\n"


@pytest.mark.parametrize("program", ["r3d_fast.cli", "bench.cli"])
def test_a_warning_of_python_is_one_line_in_which_a_name_does_no_harm(program: str) -> None:
    code = (
        f"import sys, warnings, click\nfrom {program} import cli, main\n"
        "@click.command()\ndef warn() -> None:\n"
        "    warnings.warn_explicit('a\x1b[2J\\nr3d-fast: b', UserWarning, 'v\\r.py', 7)\n"
        "cli.add_command(warn)\nsys.argv[1:] = ['warn']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == "v\\r.py:7: UserWarning: a\\x1b[2J\\nr3d-fast: b\n"


def test_a_process_that_decodes_speaks_as_plainly(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import logging, warnings\n"
        "def main(descriptor):\n"
        "    logging.getLogger('x').warning('a\\x1b[2J\\nr3d-fast: b')\n"
        "    warnings.warn_explicit('c\\x1b[2J\\nr3d-fast: d', UserWarning, 'v\\r.py', 7)\n"
        "    raise ValueError('e\\x1b[2J')\n"
    )
    code = (
        "import socket, sys\nfrom pipelines.machine.processes import start_program\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "ours, theirs = socket.socketpair()\nprint(start_program('odd.main', theirs.fileno()).wait())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    first, second, *trace = done.stderr.splitlines()
    assert first == "warning: a\\x1b[2J\\nr3d-fast: b"
    assert second == "v\\r.py:7: UserWarning: c\\x1b[2J\\nr3d-fast: d"
    assert trace[-1] == "ValueError: e\\x1b[2J"
    assert "\x1b" not in done.stderr

"""Commands whose stdin, stdout or stderr is closed, full or read no more: what was asked for as a file is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from written import REPO

from pipelines.index.video_index import VideoIndex


def in_shell(redirection: str, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A finished command with `redirection`, such as >&-, in a shell."""
    line = f'exec "$@" {redirection}'
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "r3d_fast", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-", "2>/dev/full"])
def test_closed_streams_end_nothing_and_nothing_is_written_to_the_files_that_are_opened(
    index: VideoIndex, tmp_path: Path, redirection: str
) -> None:
    words = ["data", "index", index.root, "--index", "i", "--workers", "1", "--json", "s.json"]
    done = in_shell(redirection, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.json").read_bytes())["videos"] == len(index)
    assert len(VideoIndex.open(tmp_path / "i")) == len(index)


def test_a_prediction_with_closed_streams_is_written(model: Path, video: Path, tmp_path: Path) -> None:
    words = ["predict", model, video, tmp_path / "none.avi", "--json", "p.json", "--device", "cpu"]
    done = in_shell("<&- >&- 2>&-", tmp_path, *words)
    assert done.returncode == 3
    assert [item["error"] is None for item in json.loads((tmp_path / "p.json").read_bytes())] == [True, False]


@pytest.mark.parametrize(
    "words", [["models"], ["config", "show", "demo"], ["config", "keys"], ["--version"], ["--help"]]
)
def test_a_full_stdout_is_said_in_one_line(tmp_path: Path, words: list[str]) -> None:
    done = in_shell(">/dev/full", tmp_path, *words)
    said = [line for line in done.stderr.splitlines() if line]
    assert said[-1] == "r3d-fast: stdout: can't be written: No space left on device"
    assert not any("Traceback" in line or "Exception" in line for line in said)
    assert done.returncode == 2


def test_a_result_for_a_closed_stdout_is_refused(tmp_path: Path) -> None:
    done = in_shell(">&-", tmp_path, "models", "--json", "-")
    assert (done.returncode, done.stderr) == (2, "r3d-fast: stdout: can't be written: stdout is closed\n")


def unread(cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A finished command whose stdout nobody reads from the beginning."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "r3d_fast", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(write)


def commands_with_files(index: VideoIndex, model: Path, video: Path) -> list[tuple[list[Any], list[str]]]:
    """Commands and the files that they are asked for."""
    evaluated = ["eval", "-c", "demo", "--weights", model, *tiny.options(tiny.overrides(index))]
    return [
        (["models", "--json", "models.json"], ["models.json"]),
        (["data", "index", index.root, "--index", "i", "--json", "i.json"], ["i", "i.json"]),
        ([*evaluated, "--json", "e.json", "--out", "out"], ["e.json", "out/figures.json", "out/confusion.csv"]),
        (["predict", model, video, "--json", "-", "--csv", "q.csv", "--device", "cpu"], ["q.csv"]),
        (["data", "preview", index.path, "--out", "a.png", "--mp4", "a.mp4"], ["a.png", "a.mp4"]),
    ]


def test_files_are_there_although_nobody_reads_stdout(
    index: VideoIndex, model: Path, video: Path, tmp_path: Path
) -> None:
    for words, files in commands_with_files(index, model, video):
        done = unread(tmp_path, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert all((tmp_path / file).stat().st_size for file in files)
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


def test_files_are_there_although_stdout_is_full_and_the_exit_code_says_that_it_is(
    index: VideoIndex, model: Path, video: Path, tmp_path: Path
) -> None:
    predicted = ["predict", model, video, "--device", "cpu"]
    more: list[tuple[list[Any], list[str]]] = [
        ([*predicted, "--csv", "p.csv"], ["p.csv"]),
        ([*predicted, "--timeline", "--csv", "t.csv"], ["t.csv"]),
        ([*predicted, "--features", "f.npy"], ["f.npy", "f.csv"]),
        (["doctor", "--json", "d.json"], ["d.json"]),
        (["data", "check", index.path, "--json", "c.json"], ["c.json"]),
    ]
    for words, files in [*commands_with_files(index, model, video), *more]:
        done = in_shell(">/dev/full", tmp_path, *words)
        assert done.returncode == 2, (words, done.returncode, done.stderr)
        assert done.stderr.splitlines()[-1] == "r3d-fast: stdout: can't be written: No space left on device"
        assert all((tmp_path / file).stat().st_size for file in files)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["data", "index"], ["train"]])
def test_a_loop_of_links_a_name_that_is_no_utf_8_and_a_deleted_folder_are_named(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "x\udcff").mkdir()
    (tmp_path / "gone").mkdir()
    for place, cwd, reasons in (
        ("a/x", tmp_path, ("circle", "symbolic links")),
        ("x\udcff/y", tmp_path, ("not UTF-8", "no such folder", "No such file")),
        ("x", tmp_path / "gone", ("the current folder was deleted", "No such file")),
    ):
        line = '"$@"' if cwd == tmp_path else 'rmdir ../gone; exec "$@"'
        shell = ["bash", "-c", line, "bash", sys.executable, "-m", "r3d_fast", *command, place]
        done = subprocess.run(
            shell, cwd=cwd, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode in (2, 3, 4), done.stderr
        assert "internal error" not in done.stderr
        assert any(reason in done.stderr for reason in reasons), done.stderr

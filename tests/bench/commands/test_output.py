"""Where results go: text, JSON and charts, to files, pipes and stdout, and the command line that they name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench_process import REPO, bench
from clips import write_classes
from reports import FULL

from bench.commands.output import Output, published_command
from bench.reporting.results import StudyReport, load, load_any
from pipelines.errors import UsageError

STUDY = StudyReport("some study", {"kind": "some study", "figure": 1.5})


@pytest.fixture(scope="module")
def index_command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The cheapest command that measures something."""
    videos = write_classes(tmp_path_factory.mktemp("output") / "videos", 2)
    return ["index", "--data", str(videos), "--videos", "1000", "--json"]


def test_json_on_stdout_is_all_that_is_there(index_command: list[str]) -> None:
    done = bench(*index_command, "-")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["kind"] == "index"
    assert values["command"] == "bench index --data videos --videos 1000 --json -"
    assert "| files per CPU second, median |" in done.stderr


def test_stdout_by_its_device_keeps_what_it_was_redirected_to(index_command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with out.open("w") as file:
        command = [sys.executable, "-m", "bench.cli", *index_command, "/dev/stdout"]
        subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True, cwd=REPO)
    assert json.loads(out.read_text())["kind"] == "index"
    assert Path("/dev/stdout").is_symlink()


def test_a_pipe_is_written_as_it_is(index_command: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        done = bench(*index_command, pipe)
        text, _ = reader.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(text)["kind"] == "index"
    assert pipe.is_fifo()
    assert "| files per CPU second, median |" in done.stdout


def test_json_and_chart_are_written_beside_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(tmp_path / "a.json", tmp_path / "a.svg")
    output.print("a table")
    output.write(FULL)
    assert capsys.readouterr().out == "a table\n"
    assert load(tmp_path / "a.json") == FULL
    assert "<svg" in (tmp_path / "a.svg").read_text()
    Output(tmp_path / "b.json").write(STUDY)
    assert load_any(tmp_path / "b.json") == STUDY
    Output(None).write(STUDY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.svg", "b.json"]


@pytest.mark.parametrize(
    ("json_file", "plot", "message"),
    [
        ("no/a.json", None, "no/a.json: can't be written: there is no folder no; make it first"),
        (".", None, "can't be written: it is a folder; expected a file"),
        (None, "a.gif", r"a\.gif: expected a name that ends in \.png or \.svg"),
        (None, "no/a.png", "no/a.png: can't be written: there is no folder no; make it first"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_measured(
    json_file: str | None, plot: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        Output(Path(json_file) if json_file else None, Path(plot) if plot else None)
    assert list(tmp_path.iterdir()) == []


def test_neither_a_file_that_is_read_nor_a_video_is_replaced(tmp_path: Path) -> None:
    config, video = tmp_path / "c.yaml", tmp_path / "v.avi"
    for path, message in ((config, "this command uses it"), (video, "it is a video")):
        path.write_text("kept")
        with pytest.raises(UsageError, match=message):
            Output(path, inputs=[config])
        assert path.read_text() == "kept"
    with pytest.raises(UsageError, match="two results go to this file"):
        Output(tmp_path / "a.png", tmp_path / "a.png")


def test_a_published_command_has_names_and_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["loader", "throughput", "--data", ".", f"--json={tmp_path}/a b.json", "-o", "data.root=/home/me/videos"]
    assert published_command(Path(), words) == (
        f"bench loader throughput --data {tmp_path.name} '--json=a b.json' -o data.root=videos"
    )
    assert published_command(Path("/home/me/UCF-101"), ["index", "--data=/home/me/UCF-101", "--json", "-"]) == (
        "bench index --data=UCF-101 --json -"
    )

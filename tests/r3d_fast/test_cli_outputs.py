"""What each command writes to a file that the user names: `-`, /dev/stdout, a pipe, and names that can't be written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
from written import Reader

from pipelines.index.video_index import VideoIndex
from r3d_fast.cli import cli, run_cli
from r3d_fast.models import cost

PLACES = ["-", "/dev/stdout", "fifo"]


def written(place: str, folder: Path, option: str, *arguments: str | Path) -> tuple[str, str]:
    """(what came to `place`, the text that the user sees) of a command that ended well."""
    reader = Reader(folder / "fifo") if place == "fifo" else None
    done = tiny.call(*arguments, option, folder / "fifo" if reader else place)
    assert done.returncode == 0, done.stderr
    return (reader.content().decode(), done.stdout) if reader else (done.stdout, done.stderr)


def test_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MODELS", {"r3d10": cost.MODELS["r3d10"]})  # all of them take half a minute
    assert run_cli(cli, ["models", "--classes", "7", "--json", "-"], "r3d-fast") == 0
    content, text = capsys.readouterr()
    assert json.loads(content)["classes"] == 7
    assert "r3d10" in text


@pytest.mark.parametrize("place", PLACES)
def test_data_index(index: VideoIndex, tmp_path: Path, place: str) -> None:
    arguments = ["data", "index", index.root, "--index", tmp_path / "index", "--workers", "1"]
    content, text = written(place, tmp_path, "--json", *arguments)
    assert json.loads(content)["videos"] == len(index)
    assert f"videos   {len(index)}" in text


@pytest.mark.parametrize("place", PLACES)
def test_eval(index: VideoIndex, model: Path, tmp_path: Path, place: str) -> None:
    arguments = ["eval", "-c", "demo", "--weights", model, *tiny.options(tiny.overrides(index))]
    content, text = written(place, tmp_path, "--json", *arguments)
    assert json.loads(content)["video"]["count"] == 16
    assert "evaluated 16 of 16 videos" in text


@pytest.mark.parametrize(
    ("place", "option", "more"),
    [
        ("-", "--json", []), ("/dev/stdout", "--csv", []), ("fifo", "--csv", []),
        ("-", "--csv", ["--timeline"]), ("fifo", "--json", ["--timeline"]),
    ],
)  # fmt: skip
def test_predict(model: Path, video: Path, tmp_path: Path, place: str, option: str, more: list[str]) -> None:
    content, text = written(place, tmp_path, option, "predict", model, video, "--device", "cpu", *more)
    items = json.loads(content) if option == "--json" else list(csv.DictReader(content.splitlines()))
    assert items[0]["video"] == str(video)
    assert f"{video}: " in text


def test_two_results_do_not_go_to_stdout_at_once(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    arguments = ["predict", str(model), str(video), "--json", "-", "--csv", str(tmp_path / "link")]
    assert run_cli(cli, arguments, "r3d-fast") == 2
    says = "r3d-fast: 2 results go to stdout; expected at most one: name a file for each of the others\n"
    assert capsys.readouterr() == ("", says)


def _refused(capsys: pytest.CaptureFixture[str], words: list[Any], place: Path, reason: str) -> None:
    """Expect that the command `words` refuses to write `place`, and leaves the file there as it is."""
    before = place.read_bytes()
    assert run_cli(cli, list(map(str, words)), "r3d-fast") == 2
    assert capsys.readouterr() == ("", f"r3d-fast: {place}: {reason}\n")
    assert place.read_bytes() == before


_USED = "can't be written: this command uses it; choose another file for the results"
_VIDEO = "can't be written: it is a video; choose another file for the results"


@pytest.mark.parametrize("more", [["--json"], ["--timeline", "--csv"]])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_video_is_not_replaced_by_its_predictions(
    model: Path, video: Path, tmp_path: Path, more: list[str], is_link: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "link.json" if is_link else video
    if is_link:
        place.symlink_to(video)
    _refused(capsys, ["predict", model, video, *more, place], place, _VIDEO)
    _refused(capsys, ["predict", model, video.parent, *more, place], place, _VIDEO)


def test_a_file_that_predict_reads_is_not_replaced(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed = tmp_path / "clip.bin"
    unnamed.write_bytes(video.read_bytes())
    _refused(capsys, ["predict", model, unnamed, "--json", unnamed], unnamed, _USED)
    for place in sorted(model.iterdir()):
        _refused(capsys, ["predict", model, video, "--csv", place], place, _USED)
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in ("r3d_fast.json", "model.pdiparams"):
        (exported / name).write_text("{}")
        _refused(capsys, ["predict", exported, video, "--json", exported / name], exported / name, _USED)


def test_a_video_is_not_replaced_by_its_annotated_copy(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"a video")
    for named in (video, tmp_path, tmp_path / "*.mp4"):
        assert run_cli(cli, ["predict", str(model), str(named), "--annotate", str(tmp_path)], "r3d-fast") == 2
        assert capsys.readouterr().err == (
            f"r3d-fast: --annotate {tmp_path}: the videos are in this folder, and could be replaced; "
            "choose another one\n"
        )
    assert video.read_bytes() == b"a video"


@pytest.mark.parametrize("more", [[], ["--timeline"]])
def test_a_folder_and_a_pattern_without_videos_are_said(
    model: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", model, tmp_path, tmp_path / "no*.avi", "--device", "cpu", *more]
    assert run_cli(cli, list(map(str, words)), "r3d-fast") == 3
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"{tmp_path}: error: a folder, no video in it",
        f"{tmp_path / 'no*.avi'}: error: the pattern matches no video",
    ]


def test_two_results_do_not_go_to_one_file(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "f.csv"
    (tmp_path / "link").symlink_to(place)
    for first in (["--json", place], ["--json", tmp_path / "link"], ["--features", tmp_path / "f.npy"]):
        words = ["predict", model, video, "--csv", place, *first]
        assert run_cli(cli, list(map(str, words)), "r3d-fast") == 2
        assert "two results go to this file; expected a file for each" in capsys.readouterr().err
    assert not place.exists()
    null = ["--json", "/dev/null", "--csv", "/dev/null"]
    assert run_cli(cli, ["predict", str(model), str(video), "--device", "cpu", *null], "r3d-fast") == 0


def test_a_file_that_eval_reads_is_not_replaced(
    index: VideoIndex, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("base: demo\n")
    words = ["eval", "-c", config, "--weights", model, *tiny.options(tiny.overrides(index))]
    for place in (config, index.path, model / "model.safetensors"):
        _refused(capsys, [*words, "--json", place], place, _USED)


def test_the_index_and_the_lists_are_not_replaced_by_the_summary(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists.csv"
    lists.write_text("path,label\n")
    _refused(capsys, ["data", "index", index.root, "--json", index.path], index.path, _USED)
    _refused(capsys, ["data", "index", index.root, "--lists", lists, "--json", lists], lists, _USED)
    for name in ("train.json", "val.txt", "test.list"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_text("[]")
        words = ["data", "index", index.root, "--lists", tmp_path / "folder", "--json", tmp_path / "folder" / name]
        _refused(capsys, words, tmp_path / "folder" / name, _USED)
    video = next(index.root.rglob("*.avi"))
    _refused(capsys, ["data", "index", index.root, "--json", video], video, _VIDEO)
    assert run_cli(cli, ["data", "index", str(index.root), "--index", str(tmp_path)], "r3d-fast") == 2
    assert (
        "can't be written: it is a folder; expected a file; choose another path with --index" in capsys.readouterr().err
    )
    new = tmp_path / "new"
    assert run_cli(cli, ["data", "index", str(index.root), "--index", str(new), "--json", str(new)], "r3d-fast") == 2
    assert not new.exists()


def test_a_reader_that_leaves_early_ends_the_command_quietly(index: VideoIndex, tmp_path: Path) -> None:
    command = tiny.command("data", "index", index.root, "--index", tmp_path / "index", "--json", "-")
    child = subprocess.Popen(command, cwd=tiny.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(60), "Error" in err, "Traceback" in err) == (0, False, False)


@pytest.mark.parametrize("command", ["models", "data index", "data check", "eval", "predict", "doctor"])
def test_a_file_that_can_not_be_written_is_said_before_the_work(
    index: VideoIndex, model: Path, video: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, list[Any]] = {
        "models": [],
        "data index": [index.root, "--index", tmp_path / "index"],
        "eval": ["-c", "demo", "--weights", model, *tiny.options(tiny.overrides(index))],
        "predict": [model, video],
        "data check": [index.path],
        "doctor": [],
    }
    os.mkfifo(tmp_path / "pipe")
    for place, reason in (
        (tmp_path, "it is a folder; expected a file"),
        (tmp_path / "no" / "f", f"there is no folder {tmp_path / 'no'}; make it first"),
        (tmp_path / "pipe", "it is a pipe that nobody reads; start its reader first"),
    ):
        words = [*command.split(), *map(str, arguments[command]), "--json", str(place)]
        assert run_cli(cli, words, "r3d-fast") == 2
        assert capsys.readouterr() == ("", f"r3d-fast: {place}: can't be written: {reason}\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_a_file_that_somebody_keeps_is_not_replaced_by_a_result_but_an_earlier_result_is(
    index: VideoIndex, model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.untrained(tmp_path / "other")
    (tmp_path / "vids.r3dindex").write_bytes(index.path.read_bytes())
    (tmp_path / "renamed").write_bytes(index.path.read_bytes())
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / name).write_text("kept")
    kept = {
        tmp_path / "vids.r3dindex": "it is a file of an index",
        tmp_path / "renamed": "it is an index, or another database",
        tmp_path / "config.yaml": "it is a config",
        tmp_path / "metrics.csv": "it belongs to the config.yaml beside it",
        other / "model.safetensors": "it is weights",
        other / "state.json": "it belongs to the model.safetensors beside it",
        next(index.root.rglob("*.avi")): "it is a video",
    }
    for place, what in kept.items():
        reason = f"can't be written: {what}; choose another file for the results"
        _refused(capsys, ["predict", model, video, "--csv", place], place, reason)
        _refused(capsys, ["predict", model, video, "--timeline", "--json", place], place, reason)
        _refused(capsys, ["models", "--json", place], place, reason)
    for name in ("p.csv", "noted.txt"):
        (tmp_path / name).write_text("earlier")
        assert tiny.said(capsys, "predict", model, video, "--csv", tmp_path / name, "--device", "cpu")[0] == 0
        assert (tmp_path / name).read_text().startswith("video,")


def test_a_name_that_a_spreadsheet_would_run_is_text_in_the_tables(
    video: Path, index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "=cmd|' C calc'!A0"
    model = tiny.untrained(tmp_path / "m", classes=[name, *index.classes[1:]])
    (tmp_path / f"{name}.avi").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--timeline"], ["--events", "--threshold", "0.01"]):
        words = ["predict", str(model), f"{name}.avi", "--csv", "p.csv", "--device", "cpu", "--top", "8", *more]
        assert run_cli(cli, words, "r3d-fast") == 0
        cells = [cell for row in csv.reader((tmp_path / "p.csv").read_text().splitlines()) for cell in row]
        assert f"'{name}.avi" in cells
        assert f"'{name}" in cells
        assert not any(cell.startswith("=") for cell in cells)


def test_a_name_with_commands_and_odd_bytes_has_one_form_on_the_terminal_and_in_csv(
    model: Path, video: Path, tmp_path: Path
) -> None:
    (tmp_path / "v").mkdir()
    names = [tmp_path / "v" / "a\x1b[31m\udcff.avi", tmp_path / "v" / "b\n\x07\udcff.avi"]
    names[0].write_bytes(video.read_bytes())
    names[1].write_bytes(b"no video")
    shown = [r"a\x1b[31m\xff.avi", r"b\n\x07\xff.avi"]
    files = ("--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json")
    done = tiny.call("predict", model, tmp_path / "v", "--device", "cpu", *files)
    assert done.returncode == 3, done.stderr
    assert f"{tmp_path}/v/{shown[0]}: " in done.stdout
    assert f"{tmp_path}/v/{shown[1]}: error: " in done.stderr
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["video"] for row in csv.DictReader(file)]
    assert cells == [f"{tmp_path}/v/{shown[0]}", f"{tmp_path}/v/{shown[1]}".replace(r"\n", "\n")]
    found = [Path(item["video"]) for item in json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))]
    assert found == names
    done = tiny.call("data", "index", tmp_path / "v", "--json", tmp_path / "i.json")
    assert r"a\x1b[31m\xff.avi" in done.stdout + done.stderr
    assert "udcff" not in done.stdout + done.stderr


@pytest.mark.parametrize("planted", ["folder", "link", "fifo"])
def test_a_folder_for_results_that_can_not_take_them_is_said_before_the_work(
    index: VideoIndex, model: Path, tmp_path: Path, planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out" / "predictions.jsonl"
    place.parent.mkdir()
    if planted == "folder":
        place.mkdir()
    elif planted == "link":
        place.symlink_to(index.path)
    else:
        os.mkfifo(place)
    words = ["eval", "-c", "demo", "--weights", model, *tiny.options(tiny.overrides(index)), "--out", place.parent]
    assert run_cli(cli, list(map(str, words)), "r3d-fast") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"r3d-fast: {place}: it is a")
    assert [path.name for path in place.parent.iterdir()] == [place.name]

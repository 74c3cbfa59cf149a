from __future__ import annotations

import csv
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
from runs import each_checkpoint

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as train_function
from r3d_fast.console import Progress
from r3d_fast.errors import ConfigError
from r3d_fast.runs.curves import ScalarLogs
from r3d_fast.runs.folder import RunFolder
from r3d_fast.runs.metrics_file import MetricsFile


def record(step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "train", "epoch": 1, "step": step, "loss": 1.0 / step, **more}


def steps(run: Path) -> tuple[list[int], list[int]]:
    """Of metrics.jsonl and of metrics.csv."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [json.loads(line)["step"] for line in lines], [int(row["step"]) for row in csv.DictReader(file)]


def test_a_full_disk_holds_records_back_and_tears_none(
    tmp_path: Path, limit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = MetricsFile(tmp_path, 0)
    metrics.write(record(1))
    limit((tmp_path / "metrics.jsonl").stat().st_size + 20)  # in the middle of a line
    for step in (2, 3):
        metrics.write(record(step))
    assert metrics.count == 1  # what a checkpoint may count on
    assert steps(tmp_path)[0] == [1]
    assert capsys.readouterr().err.count("metrics wait until the disk takes them") == 1
    limit()
    metrics.write(record(4))
    assert metrics.count == 4
    metrics.close()
    assert steps(tmp_path) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_what_waits_at_the_end_is_written_or_said(
    tmp_path: Path, limit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for room, lost in ((True, 0), (False, 2)):
        run = tmp_path / str(room)
        run.mkdir()
        metrics = MetricsFile(run, 0)
        limit(1)
        metrics.write(record(1))
        metrics.write(record(2))
        if room:
            limit()
        metrics.close()
        limit()
        assert ("the last 2 records could not be written" in capsys.readouterr().err) == bool(lost)
        assert steps(run)[0] == [1, 2][: 2 - lost]


def test_a_resumed_file_ends_where_its_checkpoint_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = MetricsFile(tmp_path, 0)
    for step in range(1, 6):
        metrics.write(record(step, loss=float("nan") if step == 2 else 0.5))
    metrics.close()
    again = MetricsFile(tmp_path, 3)
    assert again.count == 3
    assert again.records[1]["loss"] is None
    again.write(record(4))
    again.close()
    assert steps(tmp_path) == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("tail", [b"", b'{"kind": "tra', b"\xff\xfe\n", b"\n"])
def test_a_file_that_lost_its_end_is_continued(tmp_path: Path, tail: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(record(1)).encode() + b"\n" + tail)
    metrics = MetricsFile(tmp_path, 4)
    assert "holds only 1 of the 4 records that the checkpoint counts" in capsys.readouterr().err
    metrics.write(record(5))
    metrics.close()
    assert steps(tmp_path) == ([1, 5], [1, 5])


def test_logs_that_cannot_be_opened_are_said_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"metrics.jsonl: can't be written: it is a folder.*; choose another --run"):
        MetricsFile(tmp_path, 0)


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_nobody_who_reads_progress_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    with Progress("train", 2) as progress:
        progress.step("text")
        progress.say("line")


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed: pip install {name}")


def tensorboard_curve(run: Path, tag: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    points = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    assert len(dict(points)) == len(points)  # every step once
    return dict(points)


def visualdl_curve(run: Path, tag: str) -> dict[int, float]:
    from visualdl import LogReader

    (file,) = (run / "visualdl").iterdir()
    points = [(point.id, point.value) for point in LogReader(file_path=str(file)).get_data("scalar", tag)]
    assert len(dict(points)) == len(points)
    return dict(points)


CURVES = [
    pytest.param("tensorboard", tensorboard_curve, marks=needs("tensorboard")),
    pytest.param("visualdl", visualdl_curve, marks=needs("visualdl")),
]


@pytest.mark.parametrize(("backend", "read"), CURVES)
def test_curves_of_a_resumed_run_have_every_step_once(
    index: VideoIndex, tmp_path: Path, backend: str, read: Any
) -> None:
    more = (f"train.log_to=[{backend}]", "train.log_every_steps=2", "train.keep_checkpoints=100")
    run = tmp_path / "run"
    with each_checkpoint():
        train_function(tiny.tiny_config(index, *more), run=run)
    for folder in sorted((run / "checkpoints").iterdir())[2:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    train_function(tiny.tiny_config(index, *more), run=run, resume=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {r["step"]: r["loss"] for r in lines if r["kind"] == "train" and r["step"] % 2 == 0}
    assert read(run, "train/loss") == pytest.approx(losses, rel=1e-6)
    assert read(run, "eval/top1") == pytest.approx({r["step"]: r["top1"] for r in lines if r["kind"] == "eval"})
    assert {"visualdl", "tensorboard"} & {path.name for path in run.iterdir()} == {backend}


def test_automatic_curves_are_those_that_are_installed(tmp_path: Path) -> None:
    said: list[str] = []
    curves = ScalarLogs(tmp_path, "auto", [record(1)], said.append)
    curves.close()
    assert {path.name for path in tmp_path.iterdir()} == {n for n in ("visualdl", "tensorboard") if find_spec(n)}
    assert said == []


def test_a_backend_that_is_missing_or_fails_is_left_out_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins on the path: tensorboard breaks while it is imported, visualdl when it is to write."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise RuntimeError('no protobuf')", encoding="utf-8")
    (tmp_path / "visualdl.py").write_text(
        "class LogWriter:\n    def __init__(self, logdir): pass\n    def add_scalar(self, *a): raise OSError('gone')\n",
        encoding="utf-8",
    )
    for name in [name for name in sys.modules if name.split(".")[0] in ("tensorboard", "visualdl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    curves = ScalarLogs(tmp_path / "run", "auto", [], said.append)
    for step in (1, 2):
        curves.write(record(step))
    curves.close()
    assert said == [
        "warning: no curves for tensorboard in this run (RuntimeError: no protobuf)",
        "warning: no curves for visualdl in this run (OSError: gone)",
    ]
    monkeypatch.setattr("r3d_fast.runs.curves.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "visualdl", None)
    said.clear()
    ScalarLogs(tmp_path / "run", ["visualdl"], [record(1)], said.append).close()
    assert said == [
        "warning: no curves for visualdl in this run (not installed: pip install 'r3d-fast[visualdl]')",
    ]


def test_an_unknown_backend_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"train\.log_to.*'visualdl' or 'tensorboard'"):
        tiny.load_config("demo", ["train.log_to=[wandb]"])


def test_what_an_earlier_part_of_a_run_ran_on_stays(tmp_path: Path) -> None:
    config = tiny.load_config("demo")
    with RunFolder(tmp_path / "run") as folder:
        folder.begin(config)
        for _ in range(2):
            folder.describe(config)
    values = json.loads((tmp_path / "run" / "env.json").read_text(encoding="utf-8"))
    assert len(values["earlier"]) == 2
    assert all("earlier" not in part for part in values["earlier"])
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_durations_are_measured_by_clocks_that_nobody_sets() -> None:
    """A jump of the wall clock must not make a rate negative."""
    for package in ("pipelines", "r3d_fast", "bench"):
        for path in (tiny.REPO / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "time.time()" not in text, path
            assert "datetime.now" not in text, path

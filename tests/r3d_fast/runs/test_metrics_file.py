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

from pipelines.errors import UsageError
from r3d_fast.progress import Progress
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


def test_what_an_earlier_part_of_a_run_ran_on_stays(tmp_path: Path) -> None:
    config = tiny.load_config("demo")
    with RunFolder(tmp_path / "run") as folder:
        folder.describe(config)
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

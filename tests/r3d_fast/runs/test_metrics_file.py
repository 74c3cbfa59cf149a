from __future__ import annotations

import csv
import io
import json
import os
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


def test_what_can_be_read_of_a_damaged_file_is_kept_and_the_rest_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(record(step)).encode() + b"\n" for step in range(1, 7)]
    zeros = [*lines[:2], b"\0" * 30 + b"\n", *lines[3:]]
    joined = [*lines[:2], lines[2][:-1], *lines[3:]]
    for number, (content, what, kept) in enumerate(
        (
            (zeros, "1 damaged line", [1, 2, 4, 5]),
            (joined, "1 damaged line", [1, 2, 5]),  # and not 6, which the checkpoint does not count
            ([*lines[:2], b'{"kind": "tra'], "1 damaged line", [1, 2]),
            ([*lines[:1], b"\xff\xfe\n", b'{"kind": "train"}\n', b"\n"], "3 damaged lines", [1]),
            (lines[:2], "cut short", [1, 2]),
            ([], "cut short", []),
        )
    ):
        run = tmp_path / str(number)
        run.mkdir()
        before = b"".join(content)
        (run / "metrics.jsonl").write_bytes(before)
        (run / "metrics.csv").write_text("as it was")
        (run / "metrics.csv.damaged").write_text("of an earlier time")
        metrics = MetricsFile(run, 5, 5)
        assert capsys.readouterr().err == (
            f"warning: {run / 'metrics.jsonl'}: {what}; of the 5 records that the checkpoint counts {len(kept)} are "
            "kept, and all that was there is in metrics.jsonl.damaged and metrics.csv.damaged-2; training goes on "
            "without the others\n"
        )
        assert metrics.count == len(kept)
        metrics.write(record(6))
        metrics.close()
        assert steps(run) == ([*kept, 6], [*kept, 6])
        assert (run / "metrics.jsonl.damaged").read_bytes() == before
        assert (run / "metrics.csv.damaged-2").read_text() == "as it was"
        assert (run / "metrics.csv.damaged").read_text() == "of an earlier time"
        assert steps(run) == ([*kept, 6], [*kept, 6])
        MetricsFile(run, metrics.count, 6).close()
        assert capsys.readouterr().err == ""


def test_what_lies_in_the_place_of_the_file_is_named_and_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
    (tmp_path / "folder" / "metrics.jsonl" / "more").mkdir(parents=True)
    for what, kind in (("pipe", "FIFO"), ("folder", "folder")):
        metrics = MetricsFile(tmp_path / what, 3, 3)
        said = capsys.readouterr().err
        assert f"metrics.jsonl: it is a {kind}; expected a regular file; of the 3 records" in said
        assert said.count("\n") == 1
        metrics.write(record(4))
        metrics.close()
        assert steps(tmp_path / what) == ([4], [4])
    assert (tmp_path / "pipe" / "metrics.jsonl.damaged").is_fifo()
    assert (tmp_path / "folder" / "metrics.jsonl.damaged" / "more").is_dir()


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

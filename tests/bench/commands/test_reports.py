"""`bench report` and `bench compare`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench_process import bench
from reports import FULL, report, run

from bench.reporting.results import save
from bench.reporting.tables import tables


@pytest.mark.parametrize("options", [(), ("--brief",)])
def test_report_prints_the_tables_of_a_folder(options: tuple[str, ...], tmp_path: Path) -> None:
    save(FULL, tmp_path / "a.json")
    done = bench("report", tmp_path, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == tables([FULL], brief=bool(options))
    assert "| r3d-fast | 101 (99.0 to 120) |" in done.stdout


def test_compare_says_no_difference_of_a_report_and_itself(tmp_path: Path) -> None:
    save(FULL, tmp_path / "a.json")
    done = bench("compare", tmp_path / "a.json", tmp_path / "a.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("no difference") == 9


def test_compare_says_what_is_faster_and_that_machines_differ(tmp_path: Path) -> None:
    faster = report(run((200.0, 210.0, 205.0, 199.0, 201.0)), machine=replace(FULL.machine, cpu="Other CPU"))
    save(report(), tmp_path / "a.json")
    save(faster, tmp_path / "b.json")
    done = bench("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("warning: measured on two machines")
    assert "  faster" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "bench: nowhere: no such folder; expected one with results (*.json)\n"),
        (["report", "."], "bench: .: no results (*.json) in it; bench loader throughput --json FILE writes one\n"),
        (["compare", "a.json"], "bench: Missing argument 'B' (see bench compare --help)\n"),
        (
            ["compare", "a.json", "b.json"],
            "bench: a.json: can't be read: No such file or directory; expected a results file\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = bench(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)

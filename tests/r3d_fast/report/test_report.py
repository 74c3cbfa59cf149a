"""Reports of runs that are not as they should be: empty, half-written, of older versions, without their data."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import run_files
import tiny
from browser import Browser

from pipelines.errors import UsageError
from r3d_fast.report.report import write_report
from r3d_fast.runs.fold_results import FoldResult, fold_folder, write_folds

CLASSES = ["walk", "run", "jump"]
ODD = [None, "x", -1, 1e999, [], {}, [[]], True, float("nan"), "<b>", 10**30, {"a": {"b": [None]}}]


def page_of(run: Path) -> str:
    write_report([run], run / "report.html")
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_command_writes_into_the_run_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [run_files.write_run(tmp_path / name, CLASSES, seed=n) for n, name in enumerate(("one", "two"))]
    assert tiny.said(capsys, "report", "one") == (0, "wrote one/report.html\n", "")
    assert tiny.said(capsys, "report", "one", "two") == (0, "wrote report.html\n", "")
    assert tiny.said(capsys, "report", *runs, "--out", "both.html")[1] == "wrote both.html\n"
    assert "2 runs side by side" in Path("both.html").read_text()
    assert "metrics" not in Path("report.html").read_text().partition("<main")[0]


def test_what_is_no_run_or_can_not_be_written_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    run = run_files.write_run(tmp_path / "run", CLASSES)
    for arguments, text in (
        ([tmp_path / "none"], "none: not there; expected the folder of a run"),
        ([tmp_path / "folder"], "folder: no run"),
        ([run / "env.json"], "env.json: a file; expected the folder of a run"),
        ([run, "--out", tmp_path / "folder"], "folder: can't be written"),
        ([run, "--out", tmp_path / "no" / "such.html"], "such.html: can't be written"),
    ):
        code, out, err = tiny.said(capsys, "report", *arguments)
        assert (code, out) == (2, "")
        assert text in err
        assert len(err.splitlines()) == 1
    with pytest.raises(UsageError):
        write_report([tmp_path / "none"], tmp_path / "x.html")


def test_a_folder_of_folds_is_the_page_of_those_that_have_begun(
    browser: Browser, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_folds(run, 3, {})
    code, _, err = tiny.said(capsys, "report", run)
    assert (code, len(err.splitlines()), "run: none of its 3 folds has begun" in err) == (2, 1, True)
    results = {}
    for fold, top1 in ((1, 0.5), (2, 0.75)):
        folder = run_files.write_run(fold_folder(run, fold), CLASSES, seed=fold)
        results[fold] = FoldResult(fold, str(folder), 38, 19, 20, top1, top1)
    (fold_folder(run, 3) / "checkpoints").mkdir(parents=True)  # of a start
    write_folds(run, 3, results)
    assert tiny.said(capsys, "report", run) == (0, f"wrote {run}/report.html\n", "")
    with browser.opened(run / "report.html") as shown:
        assert shown.texts("h1") == ["2 runs side by side"]
        assert shown.texts("table.together tbody th") == ["fold-1", "fold-2"]
        assert shown.texts("header .verdict") == [
            f"{run}: 2 of 3 folds have ended: last top1: mean 62.50 %, deviation 17.68 (50.00 to 75.00); "
            "best top1: mean 62.50 %, deviation 17.68 (50.00 to 75.00)"
        ]
        assert shown.complaints == []
    (run / "folds.json").write_text("{")
    code, _, err = tiny.said(capsys, "report", run)
    assert (code, len(err.splitlines()), "folds.json: can't be read" in err) == (2, 1, True)


def test_a_run_that_has_only_begun(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    page = page_of(tmp_path / "run")
    assert "This run has not been evaluated yet." in page
    assert "config.yaml: no such file" in page
    with browser.opened(tmp_path / "run" / "report.html", 390) as shown:
        assert shown.complaints == []
        assert not shown.is_wider_than_its_window


def test_files_that_were_cut_short_are_named(browser: Browser, tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", CLASSES)
    for name in ("metrics.jsonl", "env.json", "evaluation/figures.json", "evaluation/predictions.jsonl"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) * 2 // 3])
    page = page_of(run)
    for text in (
        "metrics.jsonl: 1 line left out",
        "env.json: no JSON object",
        "figures.json: no JSON object",
        "predictions.jsonl: 1 line left out",
    ):
        assert text in page
    with browser.opened(run / "report.html") as shown:
        assert shown.page.locator(".charts svg").count() == 5
        assert shown.page.locator(".problems li").count() == 4
        assert shown.complaints == []


def test_a_run_of_nan_has_gaps_where_there_is_no_number(browser: Browser, tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", CLASSES)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.update({"loss": None, "grad_norm": float("nan"), "clip_loss": None, "lr": float("inf")})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = json.loads((run / "evaluation" / "figures.json").read_text())
    figures["video"]["loss"] = None
    run_files.write_json(run / "evaluation" / "figures.json", figures)
    page_of(run)
    with browser.opened(run / "report.html") as shown:
        assert shown.values("table.evaluations [data-figure=loss]") == [-1.0] * 5
        assert "Loss" not in " ".join(shown.texts(".charts figcaption"))
        assert shown.complaints == []


def test_a_run_of_an_older_version_has_its_curves(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", CLASSES)
    shutil.rmtree(run / "evaluation")
    page = page_of(run)
    assert "the run has no <code>evaluation/</code> yet" in page
    assert page.count("<svg") == 5
    assert 'data-figure="top1"' in page


def test_no_value_in_a_file_is_too_odd(tmp_path: Path) -> None:
    dice = random.Random(0)
    for attempt in range(10):
        run = run_files.write_run(tmp_path / f"run{attempt}", CLASSES, epochs=1, videos=20)
        for name in ("env.json", "evaluation/figures.json"):
            values = json.loads((run / name).read_text())
            for _ in range(4):
                spoil(values, dice)
            run_files.write_json(run / name, values)
        for name in ("metrics.jsonl", "evaluation/predictions.jsonl"):
            lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
            for line in lines:
                spoil(line, dice)
            (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "config.yaml").write_text("model: &m {name: *m}\n" if attempt % 2 else "train: {epochs: {1: 2}}\n3: 4\n")
        page_of(run)


def spoil(values: Any, dice: random.Random) -> None:
    """Put something odd in place of one of `values`, or deeper inside it."""
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    if not keys:
        return
    key = dice.choice(keys)
    if isinstance(values[key], (dict, list)) and dice.random() < 0.6:
        spoil(values[key], dice)
    else:
        values[key] = dice.choice(ODD)

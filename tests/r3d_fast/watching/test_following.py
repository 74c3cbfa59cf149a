"""`r3d-fast watch` in real terminals and in a file, beside a run that grows, is cut back, and ends."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path

import pytest
import tiny
from terminals import Terminal

CONFIG = "train:\n  epochs: 2\n"


def record(number: int, kind: str = "train", epoch: int = 1) -> str:
    figures = {
        "loss": 2.0 / number,
        "top1": 0.5,
        "lr": 0.1,
        "clips_per_second": 9.0,
        "wait_share": 0.25,
        "seconds": 0.5,
    }
    return json.dumps({"kind": kind, "epoch": epoch, "step": number, **figures}) + "\n"


@pytest.mark.parametrize(("columns", "lines", "charts"), [(80, 24, 4), (130, 40, 5), (39, 12, 0)])
def test_a_terminal_shows_the_curves_until_the_run_ends(columns: int, lines: int, charts: int, tmp_path: Path) -> None:
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    with Terminal(tiny.command("watch", "run"), columns, lines, tmp_path) as terminal:
        terminal.wait_for("run: waiting")
        run.mkdir()
        with (run / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (run / "config.yaml").write_text(CONFIG, encoding="utf-8")
            metrics.write_text("".join(record(k) for k in range(1, 9)) + record(9)[:30], encoding="utf-8")
            shown = terminal.wait_for("step 8")
            titles = ("loss", "top1 %", "learning rate", "clips/s", "waits for data %")
            heads = [line for line in shown[3:] if any(line.lstrip().startswith(title) for title in titles)]
            assert sum(line.count(title) for line in heads for title in titles) == charts, shown
            assert all(len(line) <= columns for line in shown)
            if charts:
                assert any("⠤" in line or "⣀" in line or "⠒" in line for line in shown)
            metrics.write_text("".join(record(k) for k in range(1, 5)), encoding="utf-8")  # resumed from a checkpoint
            terminal.wait_for("step 4")
            metrics.write_text(
                "".join(record(k) for k in range(1, 5)) + record(4, "eval") + record(8, epoch=2)
                + record(8, "eval", epoch=2), encoding="utf-8",
            )  # fmt: skip
            terminal.wait_for("step 8/8")
        assert terminal.wait() == 0
        assert "run: ended after step 8, best top1 50.0 %" in "".join(terminal.display)  # it may be two lines


def test_in_a_file_each_evaluation_is_a_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (run / "metrics.jsonl").write_text(record(1) + record(1, "eval", 2), encoding="utf-8")
    done = tiny.call("watch", run)
    assert (done.returncode, done.stderr) == (0, "")
    line, last = done.stdout.splitlines()
    assert line.startswith(f"{run}: ended  epoch 1/2  step 1")
    assert "test: loss 2.000  top1 50.0 %" in line
    assert last == f"{run}: ended after step 1, best top1 50.0 %"


def test_once_prints_the_page_and_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (run / "metrics.jsonl").write_text("".join(record(k) for k in range(1, 6)), encoding="utf-8")
    done = tiny.call("watch", run, "--once")
    shown = done.stdout.splitlines()
    assert (done.returncode, len(shown)) == (0, 23)
    assert shown[3].startswith("loss")
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 80 for line in shown)


def test_a_terminal_without_the_letters_gets_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(record(k) for k in range(1, 6)), encoding="utf-8")
    done = subprocess.run(
        ["env", "PYTHONIOENCODING=ascii", f"PYTHONPATH={tiny.REPO}", *tiny.command("watch", tmp_path, "--once")],
        capture_output=True, check=True,
    )  # fmt: skip
    assert b"\\u" not in done.stdout
    assert b"..." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("missing", "--once"), "not there; expected the folder of a run"),
        (("a.mp4",), "a file; expected the folder of a run"),
        ((".",), "no run (none of"),
        ((), "RUN"),
        (("a", "b"), "unexpected extra argument"),
    ],
)
def test_what_is_no_run_is_one_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    code, out, said = tiny.said(capsys, "watch", *arguments)
    assert (code, out, len(said.splitlines())) == (2, "", 1)
    assert says in said

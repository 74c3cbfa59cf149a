"""What is said of a run: whether it goes on, where it is, and how long it will take."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UsageError
from r3d_fast.runs.fold_results import FoldResult, fold_folder, write_folds
from r3d_fast.watching import overview
from r3d_fast.watching.overview import Watch


def step(number: int, epoch: int = 1, **values: Any) -> dict[str, Any]:
    figures = {
        "loss": 2.0 / number,
        "top1": 0.5,
        "lr": 0.1,
        "clips_per_second": 9.0,
        "wait_share": 0.25,
        "seconds": 2.0,
    }
    return {"kind": "train", "epoch": epoch, "step": number, **figures, **values}


def evaluated(number: int, epoch: int, top1: float | None) -> dict[str, Any]:
    return {"kind": "eval", "epoch": epoch, "step": number, "loss": 1.5, "top1": top1, "seconds": 10.0}


def write_run(folder: Path, records: list[dict[str, Any]], train: str = "epochs: 3") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"train:\n  {train}\n", encoding="utf-8")
    (folder / "env.json").write_text("{}", encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder


@contextmanager
def locked(run: Path) -> Iterator[None]:
    with (run / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_run_that_is_not_there_waits_until_it_is(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "run")
    assert watch.look().state == "waiting"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert watch.look().state == "waiting"
    write_run(tmp_path / "run", [])
    found = watch.look()
    assert (found.state, found.headlines()[1]) == ("running", "no step has been recorded yet")
    write_run(tmp_path / "run", [step(1)])
    assert watch.look().headlines()[0] == f"{tmp_path / 'run'}: running  epoch 1/3  step 1"


def test_a_run_is_over_when_its_process_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [step(1)])
    watch = Watch(run)
    with locked(run):
        assert watch.look().state == "running"
    assert watch.look().state == "running", "it may be started again at once"
    monkeypatch.setattr(overview, "_GRACE_SECONDS", 0.0)
    found = watch.look()
    assert found.state == "stopped"
    assert found.last_word() == (f"{run}: stopped after step 1; go on with: r3d-fast train --resume {run}")


@pytest.mark.parametrize(
    ("train", "records", "state"),
    [
        ("epochs: 2", [step(4), evaluated(4, 1, 0.5), step(8, 2), evaluated(8, 2, 0.5)], "ended"),
        ("epochs: 2", [step(4), evaluated(4, 1, 0.5), step(8, 2)], "running"),
        ("early_stop_evals: 1", [step(4), evaluated(4, 1, 0.5), evaluated(8, 2, 0.4)], "ended"),
        ("early_stop_evals: 2", [step(4), evaluated(4, 1, 0.5), evaluated(8, 2, 0.4)], "running"),
        ("max_minutes: 0.2", [step(4), evaluated(4, 1, 0.5)], "ended"),
    ],
)
def test_a_run_has_ended_when_its_config_says_so(
    train: str, records: list[dict[str, Any]], state: str, tmp_path: Path
) -> None:
    assert Watch(write_run(tmp_path / "run", records, train)).look().state == state


def test_a_run_elsewhere_that_writes_nothing_has_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step(1)])
    assert Watch(run).look().state == "running"
    for name in ("metrics.jsonl", "config.yaml"):
        os.utime(run / name, (1e9, 1e9))
    assert Watch(run).look().state == "stopped"


def test_the_report_is_the_last_that_a_run_writes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step(1)])
    (run / "report.html").touch()
    assert Watch(run).look().state == "stopped"


def test_the_lines_say_where_the_run_is_and_when_it_ends(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step(k + 1) for k in range(4)] + [evaluated(4, 1, 0.625), step(5, 2)])
    with locked(run):
        first, second, third = Watch(run).look().headlines()
    # 7 steps of 2 s and 7/4 evaluations of 10 s are left
    assert first == f"{run}: running  epoch 2/3  step 5/12  ETA 0:32"
    assert second == "loss 0.400  top1 50.0 %  lr 0.1  9.0 clips/s  waits for data 25 %"
    assert third == "test: loss 1.500  top1 62.5 %  best 62.5 % (epoch 1)"


def test_of_folds_the_one_that_runs_or_ran_last_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, watch = tmp_path / "run", Watch(tmp_path / "run")
    results = {fold: FoldResult(fold, str(fold_folder(run, fold)), 38, 19, 4, 0.5, 0.5) for fold in (1, 2)}
    ended = [step(4), evaluated(4, 1, 0.5)]

    def look_at(fold: int, count: int) -> list[str]:
        """The lines of a look while `fold` is trained, and `count` folds have ended."""
        write_folds(run, 2, {fold: results[fold] for fold in range(1, count + 1)})
        with locked(run), locked(fold_folder(run, fold)):
            return [watch.look().state, *watch.look().headlines()]

    (fold_folder(run, 1) / "checkpoints").mkdir(parents=True)
    assert watch.look().state == "waiting", "before anything is known of folds"
    assert look_at(1, 0) == ["waiting", f"{run}: waiting", "no step has been recorded yet", ""]
    write_run(fold_folder(run, 1), ended, "epochs: 1")
    assert look_at(1, 0)[:2] == ["running", f"{run}, fold 1 of 2: running  epoch 1/1  step 4/4  ETA 0:00"]
    (fold_folder(run, 1) / "report.html").touch()
    with locked(run):
        assert watch.look().state == "running", "the next fold is to come"
    assert Watch(run).look().state == "running", "it may be on another machine"
    write_run(fold_folder(run, 1), [*ended, evaluated(4, 1, 0.75)], "epochs: 1")
    write_run(fold_folder(run, 2), [step(2)], "epochs: 1")
    with locked(run), locked(fold_folder(run, 2)):
        assert watch.look().headlines()[2] == "test: loss 1.500  top1 75.0 %  best 75.0 % (epoch 1)", "how fold 1 ended"
    assert look_at(2, 1)[1] == f"{run}, fold 2 of 2: running  epoch 1/1  step 2"
    monkeypatch.setattr(overview, "_GRACE_SECONDS", 0.0)
    said = f"{run}, fold 2 of 2: stopped after step 2; go on with: r3d-fast train --resume {run}"
    assert watch.look().last_word() == said
    for name in ("metrics.jsonl", "config.yaml"):
        os.utime(fold_folder(run, 2) / name, (1e9, 1e9))
    assert "fold 1 of 2" in Watch(run).look().headlines()[0], "it was written last"
    write_run(fold_folder(run, 2), ended, "epochs: 1")
    write_folds(run, 2, results)
    found = watch.look()
    assert (found.state, found.path) == ("ended", fold_folder(run, 2))
    figures = "mean 50.00 %, deviation 0.00 (50.00 to 50.00)"
    assert found.last_word() == f"{run}: all 2 folds have ended: last top1: {figures}; best top1: {figures}"


def test_numbers_that_are_none_are_question_marks(tmp_path: Path) -> None:
    records = [step(1, loss=None, top1="x", lr=float("nan")), evaluated(1, 1, None)]
    _, second, third = Watch(write_run(tmp_path / "run", records)).look().headlines()
    assert second.startswith("loss ?  top1 ?  lr ?  ")
    assert third == "test: loss 1.500  top1 ?"


def test_metrics_that_are_cut_back_are_read_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step(k + 1) for k in range(9)])
    watch = Watch(run)
    assert "step 9" in watch.look().headlines()[0]
    write_run(run, [step(k + 1) for k in range(5)])
    assert "step 5" in watch.look().headlines()[0]
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(step(6))[:20])
    assert "step 5" in watch.look().headlines()[0], "half a line is no record"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_run_is_refused(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
        (place / "notes.txt").touch()
    else:
        place.touch()
    with pytest.raises(UsageError, match="expected"):
        Watch(place).look()


def test_hostile_names_are_plain_in_every_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r\x1b[2J'\n", [step(1)])
    found = Watch(run).look()
    assert all(line.isprintable() for line in (*found.headlines(), found.last_word()))

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import runs
import tiny

from pipelines.index.video_index import VideoIndex
from r3d_fast import evaluate
from r3d_fast.errors import DivergedError
from r3d_fast.runs.history import read_history
from r3d_fast.training.train import train

REPORTED = ("train.report=true", "train.epochs=2")


def test_a_run_has_the_files_of_its_best_evaluation_and_a_report(tmp_path: Path, index: VideoIndex) -> None:
    run = tiny.trained(tmp_path / "run", index, *REPORTED)
    history, figures = read_history(run), json.loads((run / "evaluation" / "figures.json").read_text())
    assert history.best is not None
    assert (figures["epoch"], figures["step"]) == (history.best["epoch"], history.best["step"])
    for key in ("top1", "top5", "loss", "count"):
        assert figures["video"][key] == history.best[key]
    assert {path.name for path in (run / "evaluation").iterdir()} == {
        "figures.json", "per_class.csv", "confusion.csv", "predictions.jsonl",
    }  # fmt: skip
    again, _ = evaluate(run, tiny.tiny_config(index))  # the best weights
    assert again.video["confusion"].tolist() == figures["video"]["confusion"]
    page = (run / "report.html").read_text()
    assert f"right about {100 * figures['video']['top1']:.1f}\xa0% of 16 held-out videos" in page
    assert "Ended after 2 epochs, 8 steps." in page


def test_a_run_that_is_stopped_has_a_report_too_and_a_new_one_when_it_goes_on(
    tmp_path: Path, index: VideoIndex
) -> None:
    child = runs.start(index, tmp_path / "run", "train.report=true", "train.epochs=99", resume=False)
    runs.wait_for_step(tmp_path / "run", 6, child)
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 75, told
    page = (tmp_path / "run" / "report.html").read_text()
    step = runs.records(tmp_path / "run", "train")[-1]["step"]
    assert f"of 99, {step} steps taken." in page
    epochs = step // 4 + 1
    train(tiny.tiny_config(index, "train.report=true", f"train.epochs={epochs}"), run=tmp_path / "run", resume=True)
    assert f"Ended after {epochs} epochs, {4 * epochs} steps." in (tmp_path / "run" / "report.html").read_text()


def test_what_can_not_be_written_is_a_warning(
    tmp_path: Path, index: VideoIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / ".lock").touch()  # a run's folder, in which a training was ended before its first checkpoint
    (run / "report.html").mkdir()
    (run / "evaluation").touch()
    result = train(tiny.tiny_config(index, *REPORTED), run=run)
    assert result.steps == 8
    told = capsys.readouterr().err
    assert f"warning: {run / 'evaluation'}: the evaluation could not be written (" in told
    assert f"warning: {run / 'report.html'}: not written (" in told
    assert f"make it with: r3d-fast report {run}\n" in told
    assert (run / "best" / "model.safetensors").is_file()


def test_a_run_that_failed_before_its_first_step_has_no_report(tmp_path: Path, index: VideoIndex) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    copied = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0)
    for path in (tmp_path / "data" / "train").rglob("*.avi"):
        path.write_bytes(b"no video any more")
    with pytest.raises(Exception, match="can't be read"):
        train(tiny.tiny_config(copied, *REPORTED), run=tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_run_that_diverged_has_a_report(tmp_path: Path, index: VideoIndex) -> None:
    more = ("optimizer.lr=1e30", "schedule={kind: constant, warmup_epochs: 0}", "train.epochs=20")
    with pytest.raises(DivergedError):
        train(tiny.tiny_config(index, "train.report=true", *more), run=tmp_path / "run")
    assert "of 20, " in (tmp_path / "run" / "report.html").read_text()


def test_ctrl_c_while_the_report_is_written_skips_it(tmp_path: Path, index: VideoIndex) -> None:
    run = tmp_path / "run"
    page, told = run / "report.html", [""]
    with runs.start(index, run, *REPORTED, resume=False) as child:
        assert child.stderr is not None
        for line in child.stderr:
            told.append(line)
            if line == f"writing {page}; Ctrl-C skips it\n":
                child.send_signal(signal.SIGINT)
    assert child.returncode == 0, told
    assert told[-1] == f"warning: {page}: not written (interrupted); make it with: r3d-fast report {run}\n"
    assert not page.exists()
    assert (run / "best" / "model.safetensors").is_file()

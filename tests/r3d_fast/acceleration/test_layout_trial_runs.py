"""Runs whose layout a trial decides. On a CPU there is none by itself, so here the CPU is given a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import tiny
from runs import last_checkpoint, records

import r3d_fast.training.train
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as train_function
from r3d_fast.acceleration.layout_trial import Attempt, Layout, Trial
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.weights.stored_model import restore

LAYOUTS = (Layout("NDHWC"), Layout("NDHWC", padded_stem=True), Layout("NCDHW"))
BRIEF = (
    "train.epochs=1",
    "model.dropout=0.3",
    "schedule.kind=constant",
    "schedule.warmup_epochs=0",
    "schedule.final=0",
)


def give_choice(monkeypatch: pytest.MonkeyPatch, *layouts: Layout) -> None:
    monkeypatch.setattr(r3d_fast.training.train, "candidates", lambda wanted, precision, device: layouts)


def slowed(monkeypatch: pytest.MonkeyPatch, winner: Layout) -> list[Trial]:
    """Make `winner` win each trial, which is run truly before; what the trials found is listed."""
    real, found = r3d_fast.training.train.try_layouts, []

    def decided(*arguments: Any) -> Trial:
        trial = real(*arguments)
        attempts = [Attempt(a.layout, 1.0 if a.layout == winner else 2.0) for a in trial.attempts]
        found.append(trial)
        return Trial(tuple(attempts), trial.clips, trial.seconds)

    monkeypatch.setattr(r3d_fast.training.train, "try_layouts", decided)
    return found


def assert_same_bits(run: Path, other: Path) -> None:
    ours, theirs = last_checkpoint(run), last_checkpoint(other)
    for mine, yours in ((ours.weights, theirs.weights), (ours.optimizer, theirs.optimizer)):
        assert mine.keys() == yours.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], yours[name], err_msg=name)


@pytest.mark.parametrize("winner", [LAYOUTS[1], LAYOUTS[2]], ids=str)
def test_a_run_trains_in_the_layout_that_won_and_to_the_bits_of_one_without_a_trial(
    winner: Layout, index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    give_choice(monkeypatch, *LAYOUTS)
    found = slowed(monkeypatch, winner)
    import_paddle().seed(99)
    train_function(tiny.tiny_config(index, *BRIEF), run=tmp_path / "tried")
    (trial,) = found
    assert [attempt.layout for attempt in trial.attempts] == list(LAYOUTS)
    assert all(attempt.failure is None for attempt in trial.attempts)  # all of them were truly timed
    assert trial.clips == 6  # the run's own batch size
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("layout ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"layout {winner}, by a trial of 10 steps each: NDHWC 3.0 clips/s, ")
    (record,) = records(tmp_path / "tried", "layout")
    assert record["step"] == 0
    assert (record["data_format"], record["padded_stem"]) == (winner.data_format, winner.padded_stem)
    assert [tried["clips_per_second"] for tried in record["tried"]].count(6.0) == 1
    stored = {"data_format": winner.data_format, "padded_stem": winner.padded_stem}
    assert last_checkpoint(tmp_path / "tried").state["layout"] == stored

    give_choice(monkeypatch, winner)
    train_function(tiny.tiny_config(index, *BRIEF), run=tmp_path / "given")
    assert len(found) == 1
    assert records(tmp_path / "given", "layout") == []
    assert_same_bits(tmp_path / "tried", tmp_path / "given")
    # Evaluating and predicting take the layout of the run, unless another one is asked for.
    assert restore(tmp_path / "tried").data_format == winner.data_format
    assert restore(tmp_path / "tried", data_format="NCDHW").data_format == "NCDHW"


def test_a_run_that_goes_on_keeps_its_layout_without_a_second_trial(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    winner = LAYOUTS[0]
    give_choice(monkeypatch, *LAYOUTS)
    found = slowed(monkeypatch, winner)
    train_function(tiny.tiny_config(index, *BRIEF), run=tmp_path / "run")
    capsys.readouterr()
    give_choice(monkeypatch, *reversed(LAYOUTS))
    train_function(tiny.tiny_config(index, *BRIEF, "train.epochs=2"), run=tmp_path / "run", resume=True)
    assert len(found) == 1
    assert len(records(tmp_path / "run", "layout")) == 1
    assert "by a trial" not in capsys.readouterr().err
    last = last_checkpoint(tmp_path / "run")
    assert last.state["layout"] == {"data_format": "NDHWC", "padded_stem": False}

    give_choice(monkeypatch, winner)
    train_function(tiny.tiny_config(index, *BRIEF, "train.epochs=2"), run=tmp_path / "whole")
    assert_same_bits(tmp_path / "run", tmp_path / "whole")
    # A run of an earlier version has no layout stored, and finds one.
    monkeypatch.setattr(r3d_fast.training.train, "stored_layout", lambda state, precision: None)
    give_choice(monkeypatch, *LAYOUTS)
    train_function(tiny.tiny_config(index, *BRIEF, "train.epochs=3"), run=tmp_path / "run", resume=True)
    assert [record["step"] for record in records(tmp_path / "run", "layout")] == [0, 8]


@pytest.mark.parametrize("data_format", ["auto", "NCDHW", "NDHWC"])
def test_a_cpu_or_a_given_layout_has_no_trial(
    data_format: str, index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(r3d_fast.training.train, "try_layouts", lambda *arguments: pytest.fail("a trial"))
    train_function(tiny.tiny_config(index, *BRIEF, f"model.data_format={data_format}"), run=tmp_path / "run")
    used = "NCDHW" if data_format == "auto" else data_format
    assert last_checkpoint(tmp_path / "run").state["layout"] == {"data_format": used, "padded_stem": False}


def test_a_folder_that_can_not_be_used_is_refused_before_a_trial(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.trained(tmp_path / "run", index, *BRIEF)
    give_choice(monkeypatch, *LAYOUTS)
    monkeypatch.setattr(r3d_fast.training.train, "try_layouts", lambda *arguments: pytest.fail("a trial"))
    with pytest.raises(UsageError, match="holds a run already"):
        train_function(tiny.tiny_config(index, *BRIEF), run=tmp_path / "run")


def test_data_that_make_no_batch_are_refused_before_a_trial_and_nothing_is_written(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_choice(monkeypatch, *LAYOUTS)
    monkeypatch.setattr(r3d_fast.training.train, "try_layouts", lambda *arguments: pytest.fail("a trial"))
    with pytest.raises(UsageError, match=r"batch_size 500 is more than the \d+ clips of split 'train'"):
        train_function(tiny.tiny_config(index, *BRIEF, "loader.batch_size=500"), run=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


PROGRAM = """
import sys
import r3d_fast.training.train as module
from r3d_fast.acceleration.layout_trial import Layout
from r3d_fast.cli import cli, run_cli
from r3d_fast.ranks.launcher import rank_and_count

def tried(*arguments):
    assert rank_and_count()[0] == 0, "a trial on another rank than the first"
    return real(*arguments)

module.candidates = lambda wanted, precision, device: (Layout("NDHWC"), Layout("NDHWC", True))
real, module.try_layouts = module.try_layouts, tried
sys.exit(run_cli(cli, sys.argv[1:], "r3d-fast"))
"""


def test_the_first_rank_decides_for_all(index: VideoIndex, tmp_path: Path) -> None:
    options = tiny.options(tiny.overrides(index, *BRIEF))
    run = tmp_path / "run"
    (tmp_path / "program.py").write_text(PROGRAM)
    done = ranks.launch(2, tmp_path / "logs", tmp_path / "program.py", "train", "-c", "demo", "--run", run, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    said = "".join(path.read_text() for path in (tmp_path / "logs").glob("workerlog.*"))
    assert said.count("by a trial of 10 steps each") == 1
    (record,) = records(run, "layout")
    assert all(tried["failure"] is None for tried in record["tried"])
    stored = last_checkpoint(run).state["layout"]
    assert (stored["data_format"], stored["padded_stem"]) == ("NDHWC", record["padded_stem"])

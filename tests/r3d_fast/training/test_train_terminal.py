"""What a training shows in terminals of 80 and 130 columns and in a file, and that Ctrl-C stops it in an evaluation."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import tiny
from runs import assert_same, each_checkpoint, records
from terminal import in_terminal

from pipelines.index.video_index import VideoIndex
from r3d_fast import train

MORE = (
    "train.epochs=1",
    "schedule.warmup_epochs=0",
    "eval.views=24",
    "eval.batch_size=1",
    "train.checkpoint_every_steps=9",
)
BAR = re.compile(r"train \d/4  .*  ETA (-:--|\d+:\d\d(:\d\d)?)$")


def a_command(index: VideoIndex, *more: str) -> list[str]:
    return tiny.command("train", "-c", "demo", "--run", "run", *tiny.options(tiny.overrides(index, *MORE, *more)))


def test_80_columns_show_step_evaluation_and_time_left(index: VideoIndex, tmp_path: Path) -> None:
    bars = set()
    with in_terminal(a_command(index, "eval.views=4"), 80, cwd=tmp_path) as terminal:
        for lines in terminal.frames():
            found = [line for line in lines if line.startswith("train ")]
            assert all(BAR.match(line) for line in found), found  # whole in every moment
            assert len(found) <= 1
            bars.update(found)
        assert terminal.close() == 0
    assert any("evaluating" in bar for bar in bars)
    last = terminal.shown()
    assert any(line.startswith("train 4/4") and line.endswith("ETA 0:00") for line in last), last
    assert "predict:  r3d-fast predict run VIDEO..." in last


def test_ctrl_c_in_an_evaluation_stops_it_and_the_run_goes_on_to_the_same_bits(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_terminal(a_command(index), 130, cwd=tmp_path) as terminal:
        assert BAR.match(terminal.until("evaluating 2"))
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.until("stopping after this batch; a second signal stops at once")
        line = terminal.until("stopped by a signal in the evaluation after step 4; continue with: r3d-fast train")
        assert terminal.close() == 75
    assert line.startswith("r3d-fast: ")
    run = tmp_path / "run"
    assert [record["kind"] for record in records(run)] == ["train"] * 4
    config = tiny.tiny_config(index, *MORE)
    with each_checkpoint():
        train(config, run=run, resume=True)
        said = capsys.readouterr().err
        assert re.search(r"epoch 1: test top1 .* \(16 videos\)  evaluated \d+ s$", said, re.MULTILINE), said
        train(config, run=tmp_path / "whole")
        assert "trained " in capsys.readouterr().err
    assert_same(run, tmp_path / "whole")

"""A trial of a tiny model, in a process of its own as in a run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from waiting import wait_until

from pipelines.index.video_index import VideoIndex
from pipelines.machine.processes import start_program
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.planning.trial import Line, NoTrial, measure


def test_a_trial_measures_and_leaves_the_run_as_it_is(
    index: VideoIndex, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    paddle = import_paddle()
    paddle.seed(5)
    expected = paddle.randn([3]).numpy().tolist()
    paddle.seed(5)
    measured = measure(tiny.tiny_config(index), len(index.classes), "cpu")
    assert paddle.randn([3]).numpy().tolist() == expected
    for line in (measured.train_bytes, measured.eval_bytes, measured.address_bytes):
        assert 50 * 2**20 < line.at(1) < 8 * 2**30  # Paddle alone takes more than the first
        assert 0 <= line.per_clip < 200 * 2**20
    assert 0 < measured.step_seconds.at(8) < 60
    assert 0 < measured.eval_seconds.at(8) < 60
    assert measured.as_json()["train_bytes"] == {
        "fixed": measured.train_bytes.fixed, "per_clip": measured.train_bytes.per_clip,
    }  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[-5:]] == [
        "measuring 1/5  the model is made  ETA -", "measuring 2/5  an evaluation of 4 clips",
        "measuring 3/5  a step of 1 clip", "measuring 4/5  a step of 2 clips", "measuring 5/5  a step of 4 clips",
    ]  # fmt: skip


LIMITED = """
import resource, sys
from pipelines.errors import EnvironmentProblem
from r3d_fast.config.config import load_config
from r3d_fast.planning.trial import measure
resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
try:
    measure(load_config("demo", sys.argv[1:]), 8, "cpu")
except EnvironmentProblem as error:
    print(error)
"""


def test_a_clip_that_does_not_fit_is_refused(index: VideoIndex) -> None:
    """Of such a clip the first layer alone makes 4.3 GB; here a process may have 5 in all."""
    large = ("clip.num_frames=1024", "augment.size_px=256", "model.width=64")
    command = [sys.executable, "-c", LIMITED, *tiny.overrides(index, *large)]
    environment = {**os.environ, "PYTHONPATH": str(tiny.REPO)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert re.search("not even one clip .*; choose a smaller model.width", done.stdout), done.stderr


def test_a_trial_that_fails_otherwise_says_so(index: VideoIndex) -> None:
    with pytest.raises(NoTrial, match="failed"):
        measure(tiny.tiny_config(index), -1, "cpu")


def test_a_line_gives_the_figure_of_any_batch() -> None:
    assert Line(10.0, 2.0).at(8) == 26.0


def test_where_memory_runs_out_the_trial_is_the_first_to_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start_program("r3d_fast.planning.trial_process.main", theirs.fileno())
        place = Path(f"/proc/{process.pid}/oom_score_adj")
        try:
            wait_until(lambda: place.read_text() == "1000\n")
        finally:
            process.kill()
            process.wait()

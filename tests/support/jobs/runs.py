"""Reads run folders for tests: records, checkpoints, and whether two runs are the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from waiting import wait_until

from pipelines.index.video_index import VideoIndex
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.weights.checkpoint import Checkpoint, latest_checkpoint, list_checkpoints, load_checkpoint

CLOCKS = ("clips_per_second", "wait_share", "seconds")  # these differ in every run


@contextmanager
def each_checkpoint() -> Iterator[None]:
    """A block in which training waits until each checkpoint is written, so that none is skipped for a newer one."""
    submit = CheckpointWriter.submit

    def submit_and_wait(self: CheckpointWriter, checkpoint: Checkpoint, *, best: bool = False) -> None:
        submit(self, checkpoint, best=best)
        self.finish()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "submit", submit_and_wait)
        yield


def records(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The records in the complete lines of metrics.jsonl so far, of one kind or of all."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if kind is None or record["kind"] == kind]


def last_checkpoint(run: Path) -> Checkpoint:
    found = latest_checkpoint(run)
    assert found is not None
    return found[1]


def wait_for_step(run: Path, step: int, child: subprocess.Popen[str]) -> None:
    """Wait until `run` has taken `step` steps, or its process has ended."""
    wait_until(lambda: len(records(run, "train")) >= step or child.poll() is not None, f"step {step}")


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in records(run)]


def assert_same(run: Path, other: Path) -> None:
    """Assert that two runs have the same bits in the last and the best checkpoint, and the same records."""
    for ours, theirs in (
        (last_checkpoint(run), last_checkpoint(other)),
        (load_checkpoint(run / "best"), load_checkpoint(other / "best")),
    ):
        for mine, yours in ((ours.weights, theirs.weights), (ours.optimizer, theirs.optimizer)):
            assert mine.keys() == yours.keys()
            for name in mine:
                np.testing.assert_array_equal(mine[name], yours[name], err_msg=name)
        states = [{k: v for k, v in c.state.items() if k not in ("config", *CLOCKS)} for c in (ours, theirs)]
        assert states[0] == states[1]
    assert timeless(run) == timeless(other)
    rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(records(run))


def start(index: VideoIndex, run: Path, *more: str, resume: bool = True) -> subprocess.Popen[str]:
    arguments = tiny.command("train", "-c", "demo", "--run", run, *tiny.options(tiny.overrides(index, *more)))
    if resume:
        arguments += ["--resume", "auto"]
    environment = {**os.environ, "PYTHONPATH": str(tiny.REPO)}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cut(run: Path, to: Path, step: int) -> None:
    """Copy `run` to `to` without the checkpoints after `step`."""
    shutil.copytree(run, to)
    for folder in list_checkpoints(to):
        if load_checkpoint(folder).state["step"] > step:
            shutil.rmtree(folder)


def last_checkpoint_at(run: Path, step: int) -> dict[str, Any]:
    return next(state for f in list_checkpoints(run) if (state := load_checkpoint(f).state)["step"] == step)

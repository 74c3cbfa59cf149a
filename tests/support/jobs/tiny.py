"""A tiny data set and config that train in seconds: the demo with smaller videos and a smaller network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.index.video_index import VideoIndex
from r3d_fast import train
from r3d_fast.cli import cli, run_cli
from r3d_fast.config.config import Config, load_config
from r3d_fast.demo.videos import CLASSES, make_demo_dataset
from r3d_fast.training.train import resolve_auto
from r3d_fast.weights.checkpoint import FORMAT, Checkpoint, save_checkpoint
from r3d_fast.weights.stored_model import new_model

REPO = Path(__file__).resolve().parents[3]
OVERRIDES = (
    "clip.num_frames=4",
    "augment.size_px=16",
    "loader.batch_size=6",
    "loader.workers=1",
    "loader.threads=1",
    "model.width=4",
    "train.epochs=3",
    "train.eval_every_epochs=1",
    "train.checkpoint_every_steps=2",
    "train.device=cpu",
    "train.log_to=[]",
    "train.report=false",
)


def make_tiny(folder: Path) -> VideoIndex:
    """The index of a new data set in `folder`: 24 training and 16 test videos of 8 motions, 32x32 px, 12 frames."""
    make_demo_dataset(folder / "data", videos_per_class=3, test_per_class=2, size=(32, 32), num_frames=12)
    return VideoIndex.build(folder / "data", index=folder / "data.r3dindex", workers=0)


def untrained(folder: Path, *more: str, classes: Sequence[str] = CLASSES) -> Path:
    """Write a checkpoint of a tiny network that is not trained to `folder`; by default for the demo's 8 motions."""
    config = resolve_auto(load_config("demo", [*OVERRIDES, *more]))[2]
    model = new_model(config.model, len(classes), config.train.seed)
    state = {"format": FORMAT, "config": config.model_dump(mode="json"), "classes": list(classes)}
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    save_checkpoint(folder, Checkpoint(weights, {}, state))
    return folder


def overrides(index: VideoIndex, *more: str) -> list[str]:
    return [*OVERRIDES, f"data.root={index.root}", f"data.index={index.path}", *more]


def tiny_config(index: VideoIndex, *more: str) -> Config:
    return load_config("demo", overrides(index, *more))


def trained(run: Path, index: VideoIndex, *more: str) -> Path:
    """The folder `run` after a training in it has ended."""
    train(tiny_config(index, *more), run=run)
    return run


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of an `r3d-fast` command that runs in this process."""
    capsys.readouterr()
    code = run_cli(cli, [str(a) for a in arguments], "r3d-fast")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "r3d_fast", *map(str, arguments)]


def options(values: list[str]) -> list[str]:
    return [part for value in values for part in ("-o", value)]


def call(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 240, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The finished process of an `r3d-fast` command."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        input=stdin,
    )
    assert "without its faster" not in done.stderr, done.stderr  # figures would be others, by rounding
    return done

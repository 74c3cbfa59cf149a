"""Whether a run that is killed again and again ends as if nothing had happened, and what saving costs a step.

`python -m bench.studies.resume --kills 10 --json resume.json`
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from bench.cli import _show
from bench.measuring.machine import commit, describe
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast.backend.feed import Fed, feed
from r3d_fast.backend.precision import settle
from r3d_fast.cli import run_cli
from r3d_fast.config.config import load_config
from r3d_fast.demo.videos import make_demo_dataset
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.training.learner import Learner
from r3d_fast.weights.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint

_EPOCH_STEPS = 4
# A checkpoint of 29 MB after every step of some tens of milliseconds: most kills land while one is written.
_KILLED = (
    "clip.num_frames=4", "augment.size_px=16", "loader.batch_size=6", "loader.workers=1", "loader.threads=1",
    "model.width=32", "model.dropout=0.3", "train.eval_every_epochs=3",
    "train.checkpoint_every_steps=1", "train.log_to=[]", "train.device=cpu",
)  # fmt: skip
_TIMES = ("clips_per_second", "wait_share", "seconds")
_CLASSES = 101


@click.command()
@click.option("--kills", type=click.IntRange(min=1), default=10, show_default=True, help="How often a run is killed.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments at which it is killed.")
@click.option(
    "--steps", type=click.IntRange(min=2), default=5, show_default=True, help="Steps timed with, and without."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Clips of a timed step.")
@click.option("-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value of timed steps.")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Of timed steps.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="F", help="Write all figures as JSON.")
def resume(
    kills: int, seed: int, steps: int, batch_size: int, overrides: tuple[str, ...], device: str, json_file: Path | None
) -> None:  # fmt: skip
    """Kill a small run with -9 at random moments, go on with it each time, compare it with one that nobody disturbed.

    Then time steps of the reference recipe, with and without a checkpoint after each.
    """
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise UsageError(f"{json_file}: no such folder to write to; make it first")
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    values: dict[str, Any] = {
        "kind": "train resume", "command": shlex.join(["python", "-m", "bench.studies.resume", *words]),
        "commit": commit(Path(__file__).parent), "machine": describe().in_words(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as name:
        values |= kill_and_resume(Path(name), kills, seed)
        values |= time_saving(
            Path(name), steps, [*overrides, f"loader.batch_size={batch_size}", f"train.device={device}"]
        )
    _show(values, json_file)


def kill_and_resume(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Figures of a run in `folder` that is killed `kills` times, beside one that is not."""
    make_demo_dataset(folder / "data", videos_per_class=3, test_per_class=2, size=(32, 32), num_frames=12)
    index = VideoIndex.build(folder / "data", index=folder / "data.r3dindex", workers=1)
    whole, killed, rng = folder / "whole", folder / "killed", random.Random(seed)
    epochs = kills + 2  # a kill comes after two or three steps, some of which are lost
    _say("a run that nobody disturbs")
    child = _start(index, whole, epochs)
    _wait(whole, 0, child)
    begin = time.perf_counter()
    _finish(child)
    seconds = (time.perf_counter() - begin) / (epochs * _EPOCH_STEPS)
    landed = done = 0
    while done < kills:
        child = _start(index, killed, epochs)
        before = _count(killed)
        _wait(killed, before, child)
        time.sleep(rng.uniform(0.0, 2 * seconds))
        if child.poll() is not None:
            _finish(child)
            raise RuntimeError(f"the run ended after {done} kills already")
        child.kill()
        child.communicate()
        done += 1
        writing = [*killed.rglob("*.tmp"), *killed.rglob("*.old")]
        landed += bool(writing)
        _say(f"kill {done}: after step {_count(killed)}{', during a write' if writing else ''}")
    _finish(_start(index, killed, epochs))
    steps = [record["step"] for record in _records(killed) if record["kind"] == "train"]
    return {
        "kills": done,
        "kills during a write": landed,
        "weights and moments bit-equal": _last(whole) == _last(killed),
        "best weights bit-equal": _tensors(load_checkpoint(whole / "best"))
        == _tensors(load_checkpoint(killed / "best")),
        "every step once": steps == list(range(1, epochs * _EPOCH_STEPS + 1)),
        "metrics equal": _timeless(whole) == _timeless(killed),
    }


def time_saving(folder: Path, steps: int, overrides: list[str]) -> dict[str, Any]:
    """Figures of steps of the reference recipe, in turns without and with a checkpoint after each."""
    device, precision, config = settle(load_config("ucf101_r3d18", overrides))
    batch_size = config.loader.batch_size
    learner = Learner(config, _CLASSES, precision, device)
    rng = np.random.default_rng(0)
    clip, side = config.clip.num_frames, config.augment.size_px
    shape = (3, clip, side, side) if config.model.data_format == "NCDHW" else (clip, side, side, 3)
    clips = rng.standard_normal((batch_size, *shape), dtype=np.float32)
    labels = rng.integers(0, _CLASSES, batch_size)
    fed = feed(Batch(clips, labels, np.arange(batch_size), np.ones(batch_size, bool), 0, 0, ()), device)
    for _ in range(2):
        learner.step(fed, 1e-4)
    state = {"format": 1, "config": {}, "classes": [], "records": 0}
    plain, saving, handing = [], [], []
    with CheckpointWriter(folder / "timed", 1, lambda: None, _say) as writer:
        for step in range(steps):
            plain.append(_seconds(learner, fed))
            _say(f"step {step + 1} of {steps}: {plain[-1]:.3f} s alone")
            begin = time.perf_counter()
            writer.submit(Checkpoint(*learner.arrays(), {**state, **learner.state(), "step": step}))
            handing.append(time.perf_counter() - begin)
            saving.append(_seconds(learner, fed))
            _say(f"{saving[-1]:.3f} s beside a write, {handing[-1]:.3f} s to hand it over")
            writer.finish()
        begin = time.perf_counter()
        writer.submit(Checkpoint(*learner.arrays(), {**state, "step": steps}))
        writer.finish()
        written = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in (folder / "timed").rglob("*") if file.is_file())
    return {
        "timed": f"{config.model.name}, batch {batch_size}, {precision}, {device}",
        "MB of a checkpoint": round(size / 1e6),
        "seconds of a step": _spread(plain),
        "seconds of a step beside a write": _spread(saving),
        "seconds that a step is held up by handing over": _spread(handing),
        "share of a step that handing over takes": round(median(handing) / median(plain), 4),
        "seconds to write it, with nothing beside": round(written, 2),
    }


def _seconds(learner: Learner, fed: Fed) -> float:
    begin = time.perf_counter()
    learner.step(fed, 1e-4)
    return time.perf_counter() - begin


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "low": round(min(values), 4), "high": round(max(values), 4)}


def _wait(run: Path, steps: int, child: subprocess.Popen[str]) -> None:
    """Return once the run has taken more than `steps`, or has ended."""
    while _count(run) <= steps and child.poll() is None:
        time.sleep(0.002)


def _start(index: VideoIndex, run: Path, epochs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "r3d_fast", "train", "-c", "demo", "--run", str(run), "--resume", "auto"]
    for override in (*_KILLED, f"train.epochs={epochs}", f"data.root={index.root}", f"data.index={index.path}"):
        command += ["-o", override]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def _finish(child: subprocess.Popen[str]) -> None:
    _, err = child.communicate()
    if child.returncode:
        raise RuntimeError(f"training ended with {child.returncode}: {err[-2000:]}")


def _records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _count(run: Path) -> int:
    """Training steps in its metrics, of which the last line may be half there."""
    path = run / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count('"kind": "train"') if path.exists() else 0


def _timeless(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in _TIMES} for record in _records(run)]


def _last(run: Path) -> list[tuple[str, bytes]]:
    found = latest_checkpoint(run)
    assert found is not None
    return _tensors(found[1])


def _tensors(checkpoint: Checkpoint) -> list[tuple[str, bytes]]:
    """Weights and moments, by name."""
    both = {**checkpoint.weights, **checkpoint.optimizer}
    return [(name, both[name].tobytes()) for name in sorted(both)]


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    sys.exit(run_cli(resume, sys.argv[1:], "bench.studies.resume"))

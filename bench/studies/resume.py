"""`bench studies resume`: whether a run that is killed again and again ends as if nothing had happened."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measuring.fresh_python import python_command, python_environment
from bench.measuring.turns import Say
from bench.reporting.results import StudyReport, study_report
from bench.studies.checkpoint_cost import STEPS_CONFIG, time_saving
from bench.studies.learning_curve import read_records
from pipelines.index.video_index import VideoIndex
from pipelines.output.temporary import temporary_folder
from r3d_fast.config.config import load_config
from r3d_fast.demo.videos import make_demo_dataset
from r3d_fast.training.train import resolve_auto
from r3d_fast.weights.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint

_EPOCH_STEPS = 4
# A checkpoint of 29 MB after every step of some tens of milliseconds: most kills land while one is written.
_KILLED = (
    "clip.num_frames=4", "augment.size_px=16", "loader.batch_size=6", "loader.workers=1", "loader.threads=1",
    "model.width=32", "model.dropout=0.3", "train.eval_every_epochs=3",
    "train.checkpoint_every_steps=1", "train.log_to=[]", "train.device=cpu",
)  # fmt: skip
_TIMES = ("clips_per_second", "wait_share", "seconds")


def measure_resume(
    kills: int, seed: int, steps: int, overrides: Sequence[str], *, command: str, say: Say
) -> StudyReport:
    """A report of a run that is killed `kills` times, and of `steps` steps with and without a checkpoint after each.

    `overrides` are those of the timed steps. Raises ConfigError for one that can't be used, before anything is run.
    """
    device, precision, config = resolve_auto(load_config(STEPS_CONFIG, list(overrides)))
    with temporary_folder() as folder:
        figures = kill_and_resume(folder, kills, seed, say)
        figures |= time_saving(folder, steps, config, precision, device, say)
    return study_report("train resume", command, figures)


def kill_and_resume(folder: Path, kills: int, seed: int, say: Say) -> dict[str, Any]:
    """Figures of a run in `folder` that is killed `kills` times, beside one that is not."""
    make_demo_dataset(folder / "data", videos_per_class=3, test_per_class=2, size=(32, 32), num_frames=12)
    index = VideoIndex.build(folder / "data", index=folder / "data.r3dindex", workers=1)
    whole, killed, rng = folder / "whole", folder / "killed", random.Random(seed)
    epochs = kills + 2  # a kill comes after two or three steps, some of which are lost
    say("a run that nobody disturbs")
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
        landed += (writing := _is_half_written(killed))
        say(f"kill {done}: after step {_count(killed)}{', during a write' if writing else ''}")
    _finish(_start(index, killed, epochs))
    steps = [record["step"] for record in read_records(killed) if record["kind"] == "train"]
    return {
        "kills": done,
        "kills during a write": landed,
        "weights and moments bit-equal": _last(whole) == _last(killed),
        "best weights bit-equal": _tensors(load_checkpoint(whole / "best"))
        == _tensors(load_checkpoint(killed / "best")),
        "every step once": steps == list(range(1, epochs * _EPOCH_STEPS + 1)),
        "metrics equal": _timeless(whole) == _timeless(killed),
    }


def _wait(run: Path, steps: int, child: subprocess.Popen[str]) -> None:
    """Return once the run has taken more than `steps`, or has ended."""
    while _count(run) <= steps and child.poll() is None:
        time.sleep(0.002)


def _start(index: VideoIndex, run: Path, epochs: int) -> subprocess.Popen[str]:
    command = python_command("r3d_fast", "train", "-c", "demo", "--run", run, "--resume", "auto")
    for override in (*_KILLED, f"train.epochs={epochs}", f"data.root={index.root}", f"data.index={index.path}"):
        command += ["-o", override]
    return subprocess.Popen(
        command, env=python_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace",
    )  # fmt: skip


def _finish(child: subprocess.Popen[str]) -> None:
    _, err = child.communicate()
    if child.returncode:
        raise RuntimeError(f"training ended with {child.returncode}: {err[-2000:]}")


def _is_half_written(run: Path) -> bool:
    """Whether the kill left a checkpoint that was being written."""
    return any((*run.rglob("*.tmp"), *run.rglob("*.old")))


def _count(run: Path) -> int:
    """Training steps in its metrics, of which the last line may be half there."""
    path = run / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count('"kind": "train"') if path.exists() else 0


def _timeless(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in _TIMES} for record in read_records(run)]


def _last(run: Path) -> list[tuple[str, bytes]]:
    found = latest_checkpoint(run)
    assert found is not None
    return _tensors(found[1])


def _tensors(checkpoint: Checkpoint) -> list[tuple[str, bytes]]:
    """Weights and moments, by name."""
    both = {**checkpoint.weights, **checkpoint.optimizer}
    return [(name, both[name].tobytes()) for name in sorted(both)]

"""What saving checkpoints costs training: how long steps of the reference recipe take with and without."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.measuring.turns import Say
from pipelines.loader import Batch
from pipelines.specs import DEFAULT_BATCH
from r3d_fast.backend.feed import DeviceBatch, feed
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config
from r3d_fast.learning.learner import Learner, model_to_train
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.weights.checkpoint import Checkpoint

STEPS_CONFIG = "ucf101_r3d18"
_CLASSES = 101


def time_saving(
    folder: Path, steps: int, config: Config, precision: Precision, device: str, say: Say
) -> dict[str, Any]:
    """Figures of `steps` training steps of `config`, in turns without and with a checkpoint after each."""
    model = model_to_train(config.model, _CLASSES, config.train.seed, config.init)
    learner = Learner(model, config.optimizer, config.train, precision, device)
    fed = feed(_random_batch(config), device)
    for _ in range(2):
        learner.step(fed, 1e-4)
    state = {"format": 1, "config": {}, "classes": [], "records": 0}
    plain, saving, handing = [], [], []
    with CheckpointWriter(folder / "timed", 1, lambda: None, say) as writer:
        for step in range(steps):
            plain.append(_seconds(learner, fed))
            say(f"step {step + 1} of {steps}: {plain[-1]:.3f} s alone")
            begin = time.perf_counter()
            writer.submit(Checkpoint(*learner.arrays(), {**state, **learner.state(), "step": step}))
            handing.append(time.perf_counter() - begin)
            saving.append(_seconds(learner, fed))
            say(f"{saving[-1]:.3f} s beside a write, {handing[-1]:.3f} s to hand it over")
            writer.finish()
        begin = time.perf_counter()
        writer.submit(Checkpoint(*learner.arrays(), {**state, "step": steps}))
        writer.finish()
        written = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in (folder / "timed").rglob("*") if file.is_file())
    return {
        "timed": f"{config.model.name}, batch {config.loader.batch_size}, {precision}, {device}",
        "MB of a checkpoint": round(size / 1e6),
        "seconds of a step": _spread(plain),
        "seconds of a step beside a write": _spread(saving),
        "seconds that a step is held up by handing over": _spread(handing),
        "share of a step that handing over takes": round(median(handing) / median(plain), 4),
        "seconds to write it, with nothing beside": round(written, 2),
    }


def _random_batch(config: Config) -> Batch:
    """Clips and labels of noise, in the shapes of `config`."""
    rng = np.random.default_rng(0)
    size, clip, side = config.loader.batch_size_or(DEFAULT_BATCH), config.clip.num_frames, config.augment.size_px
    shape = (3, clip, side, side) if config.model.data_format == "NCDHW" else (clip, side, side, 3)
    clips = rng.standard_normal((size, *shape), dtype=np.float32)
    return Batch(clips, rng.integers(0, _CLASSES, size), np.arange(size), np.ones(size, bool), 0, 0, ())


def _seconds(learner: Learner, fed: DeviceBatch) -> float:
    begin = time.perf_counter()
    learner.step(fed, 1e-4)
    return time.perf_counter() - begin


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "low": round(min(values), 4), "high": round(max(values), 4)}

"""Writes weights files like those of a run, for small models of any family that are not trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.config.config import Config, load_config
from r3d_fast.weights.stored_model import new_model
from r3d_fast.weights.tensor_file import write_tensors

CLASSES = tuple(f"class {number}" for number in range(5))


def write_weights(path: Path, name: str = "r3d10", width: int = 8, *more: str) -> Config:
    """Write the weights of a model for clips of 8 frames of 32 px to `path`, and give its config.

    Biases and batch norms are changed at random, so that they differ from their initial values.
    """
    chosen = (f"model.name={name}", f"model.width={width}", "augment.size_px=32", "clip.num_frames=8")
    config = load_config("demo", [*chosen, "data.root=/nowhere/videos", *more]).in_data_format("NCDHW")
    model, rng = new_model(config.model, len(CLASSES)), np.random.default_rng(0)
    for tensor in model.state_dict().values():
        if tensor.ndim == 1:
            moved = tensor.numpy() + rng.uniform(-0.1, 0.1, tensor.shape)
            tensor.set_value(import_paddle().to_tensor(moved.astype("float32")))
    about = {"config": config.model_dump(mode="json"), "classes": CLASSES, "format": 1}
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    with path.open("wb") as file:
        write_tensors(file, arrays, {"r3d_fast": json.dumps(about)})
    return config


def write_changed(path: Path, weights: dict[str, np.ndarray], about: dict[str, str]) -> Path:
    """Write `weights` with the metadata `about` of others to `path`, as another program does: without digests."""
    described = {key: value for key, value in json.loads(about["r3d_fast"]).items() if key != "tensors_sha256"}
    save_file(weights, path, {"r3d_fast": json.dumps(described)})
    return path


def clips(count: int, seed: int = 0, frames: int = 8, side: int = 32) -> np.ndarray:
    """Random clips for these models, float32 [N, 3, 8, 32, 32]."""
    return np.random.default_rng(seed).normal(size=(count, 3, frames, side, side)).astype(np.float32)

"""Checkpoints: a folder of safetensors and JSON, complete or absent, each file proved by its SHA-256. No pickle.

A checkpoint is written as `NAME.tmp`, flushed to the disk and renamed. `manifest.json`, written last, names every file
with its size and digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from pipelines.errors import R3DFastError, UsageError

FORMAT = 1
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
_STEP = "step-{:09d}"
Arrays = dict[str, NDArray[Any]]


class CheckpointError(R3DFastError, ValueError):
    """A checkpoint or a weights file can't be used; the message names the file and what is wrong with it."""

    exit_code = 5


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: weights and optimiser state by the model's own names, everything else as JSON values."""

    weights: Arrays
    optimizer: Arrays
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` as `folder`, in place of one that is there; a kill leaves the old or the new one.

    Raises OSError where the disk refuses, with nothing half-written left under that name.
    """
    building = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        about = {"r3d_fast": json.dumps({key: checkpoint.state[key] for key in ("format", "config", "classes")})}
        files = {
            WEIGHTS: save_tensors(checkpoint.weights, about),
            OPTIMIZER: save_tensors(checkpoint.optimizer) if checkpoint.optimizer else b"",
            STATE: json.dumps(checkpoint.state, indent=1).encode(),
        }
        files = {name: content for name, content in files.items() if content}
        manifest = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        }
        files[MANIFEST] = json.dumps(manifest, indent=1).encode()
        for name, content in files.items():
            with (building / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(building)
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        building.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every file checked against the manifest. Raises CheckpointError."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name, expected in manifest.items():
            content = (folder / name).read_bytes()
            if len(content) != expected["bytes"]:
                raise CheckpointError(
                    f"{folder / name}: {len(content)} bytes, the manifest says {expected['bytes']}: cut short; "
                    "use another checkpoint"
                )
            if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                raise CheckpointError(
                    f"{folder / name}: SHA-256 differs from the manifest: damaged on disk; use another checkpoint"
                )
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a complete checkpoint ({error}); use another one") from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{folder}: checkpoint format {state.get('format')}, this version reads {FORMAT}")
    optimizer = read_tensors(folder / OPTIMIZER)[0] if OPTIMIZER in manifest else {}
    return Checkpoint(read_tensors(folder / WEIGHTS)[0], optimizer, state)


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file. Raises CheckpointError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimiser steps lies."""
    return run / "checkpoints" / _STEP.format(step)


def list_checkpoints(run: Path) -> list[Path]:
    """The complete-looking checkpoints of a run, oldest first; left-overs of killed writes are not among them."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted(folder for folder in folders if folder.is_dir() and folder.suffix == "")


def latest_checkpoint(run: Path) -> tuple[Path, Checkpoint, list[str]] | None:
    """(folder, checkpoint, complaints) of the newest checkpoint that is whole; None if the run has none at all.

    `complaints` has a line for each newer one that was passed over. Raises CheckpointError if all are damaged.
    """
    folders = list_checkpoints(run)
    complaints: list[str] = []
    for folder in reversed(folders):
        try:
            return folder, load_checkpoint(folder), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    if folders:
        raise CheckpointError("no checkpoint of the run is whole: " + "; ".join(complaints))
    return None


def drop_old_checkpoints(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a run, and what killed writes left."""
    for folder in list_checkpoints(run)[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (run / "checkpoints").glob("*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def find_weights(model: Path) -> Path:
    """The weights file that `model` means: a .safetensors file, a checkpoint, or a run (its best, else its last).

    Raises UsageError where there is none.
    """
    if model.is_file():
        return model
    run_best = [model / name / WEIGHTS for name in ("best", "best.old")]
    for path in [model / WEIGHTS, *run_best, *(folder / WEIGHTS for folder in reversed(list_checkpoints(model)))]:
        if path.is_file():
            return path
    what = "a folder without a model" if model.is_dir() else "no such file or folder"
    raise UsageError(f"{model}: {what}; expected a run folder, a checkpoint folder or a .safetensors file")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_arrays(tensors: dict[str, Any]) -> Arrays:
    """Paddle tensors by name as NumPy arrays of their own."""
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}

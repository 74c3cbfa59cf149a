"""Checkpoints: folders of safetensors and JSON files, written complete or not at all. They hold no pickle.

`manifest.json`, which is written last, has the size and SHA-256 of each file. While a checkpoint is replaced, the old
one is called `NAME.old` until the new one has its name; if the process is killed in between, `NAME.old` is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pipelines.errors import UsageError
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.errors import CheckpointError
from r3d_fast.files import delete_folder, delete_leftovers, put_in_place, replaced_folder, set_aside
from r3d_fast.weights.tensor_file import write_bytes, write_tensors

FORMAT = 1
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
_STEP = "step-{:09d}"
Pace = Callable[[float], None]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: weights and optimiser state by the names in the model, the rest as JSON values."""

    weights: Arrays
    optimizer: Arrays
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, pace: Pace | None = None) -> None:
    """Write `checkpoint` to `folder`, in place of an earlier one; if it is killed, the old or the new one is there.

    `pace` is called after each piece of the work, with the seconds that it took. Raises OSError where the disk refuses;
    then nothing half-written is left under that name.
    """
    about = {"r3d_fast": json.dumps({key: checkpoint.state[key] for key in ("format", "config", "classes")})}
    tensors = {WEIGHTS: (checkpoint.weights, about)}
    if checkpoint.optimizer:
        tensors[OPTIMIZER] = (checkpoint.optimizer, {})
    with replaced_folder(folder, stand_by=folder.with_name(folder.name + ".old")) as building:
        manifest = {}
        for name, (arrays, metadata) in tensors.items():
            with (building / name).open("wb", buffering=0) as file:
                manifest[name] = write_tensors(file, arrays, metadata, pace)
        with (building / STATE).open("wb") as file:
            manifest[STATE] = write_bytes(file, json.dumps(checkpoint.state, indent=1).encode())
        (building / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode())


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises CheckpointError where a file is missing or differs from the manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name, expected in manifest.items():
            content = (folder / name).read_bytes()
            if len(content) != expected["bytes"]:
                raise CheckpointError(
                    f"{folder / name}: {len(content)} bytes, the manifest says {expected['bytes']}: cut short; "
                    "use an earlier checkpoint"
                )
            if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                raise CheckpointError(
                    f"{folder / name}: SHA-256 differs from the manifest: damaged on disk; use an earlier checkpoint"
                )
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a complete checkpoint ({error}); use an earlier one") from error
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder}: checkpoint format {state.get('format')}, this version reads {FORMAT}; use the r3d-fast that "
            "wrote it"
        )
    optimizer = read_tensors(folder / OPTIMIZER)[0] if OPTIMIZER in manifest else {}
    return Checkpoint(read_tensors(folder / WEIGHTS)[0], optimizer, state)


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file. Raises CheckpointError where it can't be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def step_folder(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return run / "checkpoints" / _STEP.format(step)


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, without the remains of killed writes; files are not checked."""
    folders = {folder.name: folder for folder in (run / "checkpoints").glob("step-*") if folder.is_dir()}
    whole = {name: folder for name, folder in folders.items() if folder.suffix == ""}
    standing_by = {folder.stem: folder for folder in folders.values() if folder.suffix == ".old"}
    return [folder for _, folder in sorted({**standing_by, **whole}.items())]


def latest_checkpoint(run: Path) -> tuple[Path, Checkpoint, list[str]] | None:
    """(folder, checkpoint, complaints) of the newest checkpoint that is not damaged; None if the run has none at all.

    `complaints` has a line for each newer checkpoint, which is damaged. Raises CheckpointError if all are damaged.
    """
    folders = list_checkpoints(run)
    complaints: list[str] = []
    for folder in reversed(folders):
        try:
            return folder, load_checkpoint(folder), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    if folders:
        raise CheckpointError("every checkpoint of the run is damaged: " + "; ".join(complaints))
    return None


def drop_old_checkpoints(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a run, and the remains of killed writes."""
    for folder in list_checkpoints(run)[:-keep]:
        with suppress(OSError):
            delete_folder(folder)
    delete_leftovers(run / "checkpoints", "*.tmp")


def set_aside_newer(run: Path, after: Path) -> None:
    """Rename the checkpoints of a run that are newer than `after` to `NAME.damaged`: they are not used any more."""
    for folder in list_checkpoints(run):
        if folder.name > after.name:
            with suppress(OSError):
                set_aside(folder, ".damaged")


def clean_leftovers(run: Path) -> None:
    """Delete the remains of killed writes in a run. Only the process that holds the lock of the run may call this."""
    delete_leftovers(run)
    delete_leftovers(run / "checkpoints", "*.tmp")
    for old in (*(run / "checkpoints").glob("*.old"), *run.glob("best.old")):
        if old.with_suffix("").exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(OSError):
                put_in_place(old, old.with_suffix(""))


def model_files(model: Path) -> list[Path]:
    """The paths that the files of `model` have: a .safetensors file, a checkpoint or a run. Some may not exist."""
    files = [model, *(model / name for name in ("config.yaml", "env.json", "metrics.jsonl"))]
    folder = model if model.is_dir() else model.parent
    checkpoints = [folder, model / "best", model / "best.old", *list_checkpoints(model)]
    return files + [place / name for place in checkpoints for name in (WEIGHTS, OPTIMIZER, STATE, MANIFEST)]


def find_weights(model: Path) -> Path:
    """The weights file of `model`: a .safetensors file, a checkpoint, or a run (its best weights, else its last).

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

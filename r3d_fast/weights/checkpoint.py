"""Checkpoints: folders of safetensors and JSON files, written complete or not at all. They hold no pickle.

`manifest.json`, which is written last, has the size and SHA-256 of each file. While a checkpoint is replaced, the old
one is called `NAME.old` until the new one has its name; if the process is killed in between, `NAME.old` is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError
from pipelines.input.regular_files import open_regular, read_regular, what_lies_at
from pipelines.output.files import file_digest, put_in_place
from pipelines.output.folders import delete_folder, delete_leftovers, replaced_folder, set_aside
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.path_kinds import other_kind
from r3d_fast.weights.tensor_file import Pace, write_bytes, write_tensors
from r3d_fast.weights.tensor_reader import FileProof, read_tensors, require_digest, require_size
from r3d_fast.weights.weights_file import read_weights_file, write_weights_file

FORMAT = 1
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
_STEP = "step-{:09d}"
_USE_EARLIER = "; use an earlier checkpoint"
_MOST_MANIFEST, _MOST_STATE = 1 << 16, 64 << 20  # bytes
# Weights have two moments and a raw copy beside them at most (AdamW with averaged weights).
_MOST_MOMENTS, _SPARE = 8, 1 << 20  # the optimiser's bytes as a multiple of the weights', and some more for its header
# What the state of a checkpoint has at least, and of which type what else it has must be.
_REQUIRED: dict[str, type] = {"config": dict, "classes": list}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "step": int, "epoch": int, "position": int, "skipped": int, "records": int, "best_step": int, "falls": int,
    "evals_since_best": int, "plateau_waited": int, "ema_updates": int, "index_digest": str, "precision": str,
    "layout": dict, "scaler": dict, "seconds": (int, float), "best_top1": (int, float),
    "best_loss": (int, float, type(None)), "last_top1": (int, float, type(None)),
    "plateau_best": (int, float, type(None)), "clip_seconds": (int, float, type(None)),
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: weights and optimiser state by the names in the model, the rest as JSON values."""

    weights: Arrays
    optimizer: Arrays
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, pace: Pace | None = None) -> None:
    """Write `checkpoint` to `folder`, in place of an earlier one; if it is killed, the old or the new one is there.

    Raises OSError where the disk refuses; then nothing half-written is left under that name.
    """
    state = checkpoint.state
    description = {key: state.get(key) for key in ("format", "config", "classes", "clip_seconds")}
    with replaced_folder(folder, stand_by=folder.with_name(folder.name + ".old")) as building:
        manifest = {}
        with (building / WEIGHTS).open("wb", buffering=0) as file:
            manifest[WEIGHTS] = write_weights_file(file, checkpoint.weights, description, pace)
        if checkpoint.optimizer:
            with (building / OPTIMIZER).open("wb", buffering=0) as file:
                manifest[OPTIMIZER] = write_tensors(file, checkpoint.optimizer, {}, pace)
        with (building / STATE).open("wb") as file:
            manifest[STATE] = write_bytes(file, json.dumps(checkpoint.state, indent=1).encode())
        (building / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode())


def load_checkpoint(folder: Path, *, with_optimizer: bool = True) -> Checkpoint:
    """The checkpoint in `folder`; `with_optimizer`: else the optimiser's file is checked too, but not kept.

    Raises CheckpointError where any of its files is missing, is no regular file or differs from the manifest.
    """
    with _whole(folder):
        lies = what_lies_at(folder)
        if lies not in ("a folder", "nothing"):
            raise ValueError(f"it is {lies}; expected the folder of a checkpoint: remove it")
    proofs = _read_manifest(folder)
    for name, proof in proofs.items():
        _require_file(folder / name, proof)
    state = _read_state(folder, proofs[STATE])
    weights, _ = read_weights_file(folder / WEIGHTS, proofs[WEIGHTS])
    optimizer: Arrays = {}
    if OPTIMIZER in proofs:
        size, most = proofs[OPTIMIZER].bytes, _MOST_MOMENTS * proofs[WEIGHTS].bytes + _SPARE
        if size > most:
            raise CheckpointError(f"{folder / OPTIMIZER}: {size} bytes; expected at most {most}, by its weights")
        if with_optimizer:
            optimizer = read_tensors(folder / OPTIMIZER, proofs[OPTIMIZER])[0]
        else:
            with _whole(folder, OPTIMIZER):
                require_digest(folder / OPTIMIZER, file_digest(folder / OPTIMIZER), proofs[OPTIMIZER])
    return Checkpoint(weights, optimizer, state)


def _read_manifest(folder: Path) -> dict[str, FileProof]:
    """The sizes and digests of the files of the checkpoint in `folder`. Raises CheckpointError unless it is whole."""
    with _whole(folder, MANIFEST):
        values = json.loads(read_regular(folder / MANIFEST, _MOST_MANIFEST))
        if not isinstance(values, dict) or not {WEIGHTS, STATE} <= values.keys() <= {WEIGHTS, STATE, OPTIMIZER}:
            raise ValueError(f"names other files than {WEIGHTS}, {STATE} and {OPTIMIZER}")
        proofs = {name: FileProof(**about) for name, about in values.items()}
        if not all(type(proof.bytes) is int and isinstance(proof.sha256, str) for proof in proofs.values()):
            raise ValueError("has sizes or digests that are none")
        if OPTIMIZER not in proofs and os.path.lexists(folder / OPTIMIZER):
            raise ValueError(f"does not name {OPTIMIZER}, which is there")
        return proofs


def _read_state(folder: Path, proof: FileProof) -> dict[str, Any]:
    """The content of state.json in `folder`. Raises CheckpointError where it is damaged, or of another format."""
    path = folder / STATE
    with _whole(folder, STATE):
        content = read_regular(path, _MOST_STATE)
        require_digest(path, hashlib.sha256(content).hexdigest(), proof)
        state = json.loads(content)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise CheckpointError(
            f"{folder}: checkpoint format {found}, this version reads {FORMAT}; use the r3d-fast that wrote it"
        )
    wrong = [key for key, kind in _REQUIRED.items() if not isinstance(state.get(key), kind)]
    wrong += [key for key, kind in _TYPES.items() if key in state and not isinstance(state[key], kind)]
    if wrong or not all(isinstance(name, str) for name in state["classes"]):
        with _whole(folder, STATE):
            raise ValueError(f"{wrong[0] if wrong else 'classes'} is missing or of a wrong type")
    return state


def _require_file(path: Path, proof: FileProof) -> None:
    """Raise CheckpointError unless a regular file of the size in `proof` is at `path`."""
    with _whole(path.parent, path.name), open_regular(path) as file:
        require_size(path, os.fstat(file.fileno()).st_size, proof)


@contextmanager
def _whole(folder: Path, name: str = "") -> Iterator[None]:
    """A block that reads the file `name` of the checkpoint in `folder` ("": looks at the folder itself).

    What is wrong is raised as CheckpointError.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        what = f"{name}: {reason}" if name else reason
        raise CheckpointError(f"{folder}: not a complete checkpoint ({what}){_USE_EARLIER}") from error


def step_folder(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return run / "checkpoints" / _STEP.format(step)


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, without the remains of killed writes; nothing in them is checked.

    What lies in the place of such a folder, a file or a dead link, is in the list too: it is a damaged checkpoint.
    """
    folders = {folder.name: folder for folder in (run / "checkpoints").glob("step-*")}
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
        raise all_damaged(run, complaints)
    return None


def counted_records(run: Path) -> int:
    """How many lines metrics.jsonl of a run had at its newest checkpoint; 0 where that can't be told."""
    with suppress(OSError, ValueError, RecursionError, IndexError, AttributeError):
        count = json.loads(read_regular(list_checkpoints(run)[-1] / STATE, _MOST_STATE)).get("records")
        return count if isinstance(count, int) else 0
    return 0


def damaged_best(run: Path) -> str:
    """What is wrong with the best checkpoint of a run, in a line; "" if it is whole, or the run has none."""
    if not os.path.lexists(run / "best"):
        return ""
    try:
        load_checkpoint(run / "best", with_optimizer=False)
    except CheckpointError as error:
        reason = str(error).removesuffix(_USE_EARLIER)
        return f"{reason}; until a better one is written, `eval` and `predict` take the newest checkpoint of the run"
    return ""


def all_damaged(run: Path, complaints: list[str]) -> CheckpointError:
    """The error of a `run` without a whole checkpoint; `complaints` has what is wrong with each of them."""
    reasons = "; ".join(complaint.removesuffix(_USE_EARLIER) for complaint in complaints)
    return CheckpointError(f"{run}: every checkpoint of the run is damaged: {reasons}; use the weights of another run")


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
    places = weights_places(model)
    return next((path for path in places if path.is_file()), places[0])


def weights_places(model: Path) -> list[Path]:
    """Where the weights of `model` may lie, the first choice first; of a run in its best and in all its checkpoints.

    Of a file or a checkpoint it is one path, at which nothing may be if the checkpoint is damaged. Raises UsageError
    where there is no model.
    """
    if model.is_file() and other_kind(model) is None:
        return [model]
    if any(os.path.lexists(model / name) for name in (WEIGHTS, STATE, MANIFEST)):
        return [model / WEIGHTS]
    best = [folder for folder in (model / "best", model / "best.old") if os.path.lexists(folder)]
    if places := [folder / WEIGHTS for folder in (*best, *reversed(list_checkpoints(model)))]:
        return places
    what = other_kind(model) or ("a folder without a model" if model.is_dir() else "no such file or folder")
    raise UsageError(f"{model}: {what}; expected a run folder, a checkpoint folder or a .safetensors file")

"""Exports a trained model: a folder with a static Paddle model, r3d_fast.json, and an ONNX file on request.

The folder is built under a temporary name. There the exported model is run in its inference engine and compared with
the trained model; only if they agree is the folder renamed.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.output.folders import new_folder
from pipelines.specs import DEFAULT_BATCH
from r3d_fast.backend.paddle import choose_device, import_paddle
from r3d_fast.backend.precision import available_precision
from r3d_fast.config.sections import TrainSpec
from r3d_fast.errors import CheckpointError, ParityError
from r3d_fast.export.clip_recipe import clip_recipe
from r3d_fast.export.inference_engine import InferenceEngine
from r3d_fast.export.manifest import (
    ABOUT,
    FEATURES,
    INPUT,
    LOGITS,
    ONNX,
    PARAMETERS,
    ExportManifest,
    FileEntry,
    Program,
    TensorEntry,
    as_text,
    describe_file,
    is_exported,
    read_exported,
)
from r3d_fast.export.parity import Check, check, reference, tolerance
from r3d_fast.export.static_graph import save_half, save_static
from r3d_fast.version import __version__
from r3d_fast.weights.stored_model import RestoredModel, restore

Form = Literal["auto", "2.6"]
Half = Literal["fp16", "bf16"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """The exported folder; `about` is the content of its r3d_fast.json, with the differences that were measured."""

    folder: Path
    about: ExportManifest


def export(
    model: Path,
    out: Path,
    *,
    onnx: bool = False,
    precision: Half | None = None,
    form: Form = "auto",
    say: Say = lambda line: None,
) -> ExportResult:
    """Export `model`, a run, a checkpoint or a .safetensors file, to the folder `out`.

    `out` is written complete, or not at all. The graph takes clips float32 [N, 3, T, S, S] for any N and gives logits
    (no softmax) and pooled features. `form` "2.6" writes files that Paddle 2.6 and 3.x both read; "auto" writes the
    form of the installed Paddle. `precision` stores and computes in half precision, for a GPU. `say` gets a line for
    each step. Raises UsageError where `out` can't be used, CheckpointError where the model can't be used,
    EnvironmentProblem where this machine lacks something, and ParityError where the outputs of the exported model
    differ from those of the trained one.
    """
    out = out.resolve()
    _check_out(out)
    if onnx:
        from r3d_fast.export.onnx_file import require_onnx

        require_onnx()
    paddle = import_paddle()
    before = paddle.get_device()
    device = _choose_device(precision)
    paddle.set_device("cpu")  # the export is compared with what the trained model computes on the CPU in float32
    try:
        restored = restore(model, "cpu", train=TrainSpec(precision="fp32"), data_format="NCDHW")
        checks = reference(restored)
        with new_folder(out) as folder:
            about = _write(restored, folder, checks, device, onnx, precision, form, say)
    finally:
        paddle.set_device(before)
    return ExportResult(out, about)


def _write(
    restored: RestoredModel, folder: Path, checks: list[Check], device: str, onnx: bool, precision: Half | None,
    form: Form, say: Say,
) -> ExportManifest:  # fmt: skip
    """Write every file of the export to `folder`, and compare its models with the trained one; returns the manifest."""
    shape = checks[0].clips.shape[1:]
    say(f"tracing {restored.config.model.name} from {restored.weights}")
    program = save_static(restored.model, folder, shape, older=form == "2.6" or precision is not None)
    _check_whole(restored.model, folder / PARAMETERS)
    if onnx:
        from r3d_fast.export.onnx_file import write_onnx

        say(f"converting to {ONNX}")
        write_onnx(folder / program, folder / PARAMETERS, folder / ONNX)
    if precision is not None:
        save_half(folder, program, precision)
    about = _describe(restored, folder, program, checks, precision)
    (folder / ABOUT).write_text(as_text(about), encoding="utf-8")
    say(f"comparing {program} with the trained model, on the {device.upper()}")
    try:
        engine = InferenceEngine(folder, device)
    except CheckpointError as error:
        raise ParityError(f"the exported model can't be run: {error}. Nothing was written") from error
    about = _with_names(about, engine)
    name = "paddle.inference" + (" with TensorRT" if engine.tensorrt else "")
    found = [check(engine, checks, program, name, device, tolerance(precision or "fp32", device))]
    if onnx:
        from r3d_fast.export.onnx_file import open_onnx

        say(f"comparing {ONNX} with the trained model")
        run, name = open_onnx(folder / ONNX)
        found.append(check(run, checks, ONNX, name, "cpu", tolerance("fp32", "cpu")))
    about = about.model_copy(update={"parity": tuple(found)})
    (folder / ABOUT).write_text(as_text(about), encoding="utf-8")
    return about


def _describe(
    restored: RestoredModel, folder: Path, program: Program, checks: list[Check], precision: Half | None
) -> ExportManifest:
    """The content of r3d_fast.json for the files in `folder`, still without the results of the comparison."""
    config = restored.config
    clip, augment, _ = config.eval_specs()
    files: dict[str, FileEntry] = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
    first = checks[0]
    return ExportManifest(
        format=1,
        r3d_fast=__version__,
        paddle=import_paddle().__version__,
        classes=restored.classes,
        clip=config.clip,
        augment=config.augment,
        eval=config.eval,
        batch_size=config.loader.batch_size_or(DEFAULT_BATCH),
        model=config.model,
        precision=precision or "fp32",
        program=program,
        inputs=(_tensor(INPUT, first.clips, "made as `recipe` says"),),
        outputs=(
            _tensor(LOGITS, first.logits, "before softmax"),
            _tensor(FEATURES, first.features, "averaged over frames, height and width, before the last layer"),
        ),
        recipe=clip_recipe(clip, augment),
        clip_seconds=restored.clip_seconds,
        parity=(),
        files=files,
    )


def _tensor(name: str, values: Any, about: str) -> TensorEntry:
    """The entry of the tensor that ONNX calls `name`; Paddle's own name is known once the graph was loaded."""
    return TensorEntry(name=name, onnx_name=name, shape=(-1, *values.shape[1:]), about=about)


def _with_names(about: ExportManifest, engine: InferenceEngine) -> ExportManifest:
    """`about` with the names that Paddle's predictor has for inputs and outputs; they are in the same order."""
    inputs, outputs = engine.tensor_names()
    named = {
        "inputs": tuple(one.model_copy(update={"name": name}) for one, name in zip(about.inputs, inputs, strict=True)),
        "outputs": tuple(
            one.model_copy(update={"name": name}) for one, name in zip(about.outputs, outputs, strict=True)
        ),
    }
    return about.model_copy(update=named)


def _choose_device(precision: Half | None) -> str:
    """The device on which the export is compared: the one that predict would take.

    Raises EnvironmentProblem where it can't compute in half precision.
    """
    device = choose_device("auto")
    if precision is None:
        return device
    if device == "cpu":
        raise EnvironmentProblem(
            f"--precision {precision}: needs a GPU, as Paddle has no 3D convolution in half precision on the CPU; "
            "export on a machine with a GPU, or leave --precision out"
        )
    if available_precision(precision, device, "O1").name != precision:
        raise EnvironmentProblem(
            f"--precision {precision}: this GPU can't compute in {precision}; export on a GPU that can, or leave "
            "--precision out"
        )
    return device


def _check_whole(model: Any, parameters: Path) -> None:
    """Raise OSError if the file is smaller than the model's weights: Paddle reports no error where a disk is full."""
    least = sum(math.prod(tensor.shape) * 4 for tensor in model.state_dict().values())
    if parameters.stat().st_size < least:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check_out(out: Path) -> None:
    """Raise UsageError unless `out` can become an export: absent, empty, or an earlier export and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out}: not a folder; expected a new one, an empty one or an earlier export")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    if not is_exported(out):
        raise UsageError(f"{out}: not empty, and not an earlier export; give a new folder")
    try:
        written = {ABOUT, *read_exported(out).files}
    except CheckpointError:  # a damaged export may be replaced too: these are all files that it may have
        written = {ABOUT, PARAMETERS, ONNX, "model.json", "model.pdmodel"}
    if foreign := sorted(present - written):
        raise UsageError(
            f"{out}: an earlier export with other files in it ({', '.join(foreign[:5])}); move these files away, or "
            "give a new folder"
        )

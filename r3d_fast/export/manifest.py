"""The content of r3d_fast.json, the file in an exported folder that says all that predicting needs to know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.input.regular_files import read_regular
from pipelines.output.files import file_digest
from pipelines.specs import AugmentSpec, BatchSize, ClipSpec, LoaderSpec, Positive, Spec
from r3d_fast.config.config import MOST_PIXELS, Config
from r3d_fast.config.sections import EvalSpec, ModelSpec
from r3d_fast.errors import CheckpointError
from r3d_fast.export.clip_recipe import ClipRecipe

ABOUT = "r3d_fast.json"
PARAMETERS = "model.pdiparams"
ONNX = "model.onnx"
FORMAT = 1
INPUT, LOGITS, FEATURES = "clips", "logits", "features"
_NUMBERS = re.compile(r"\[[\s\d.,e+-]+\]")
_LARGEST_ABOUT = 1 << 24  # bytes; for comparison, the classes of Kinetics-700 take 20 kB

# A plain name without slashes, so that it can't lead out of the folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
Program = Literal["model.json", "model.pdmodel"]


class FileEntry(Spec):
    """Size and SHA-256 of a file of the export."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TensorEntry(Spec):
    """An input or output of the graph; in its shape -1 stands for any number of clips.

    `name`: what Paddle's predictor calls it; `onnx_name`: what it is called in model.onnx.
    """

    name: str
    onnx_name: str = ""  # exports of before have none
    shape: Annotated[tuple[int, ...], Field(min_length=1)]
    dtype: Literal["float32"] = "float32"
    about: str = ""


class Difference(Spec):
    """The largest absolute difference from the trained model, and the largest absolute value of the trained model."""

    max_abs: Annotated[float, Field(ge=0.0)]
    largest: Annotated[float, Field(ge=0.0)]


class Parity(Spec):
    """A comparison of an exported file with the trained model: on what it ran, and the differences."""

    file: FileName
    engine: str
    device: str
    batch_sizes: tuple[Positive, ...]
    tolerance: Annotated[float, Field(gt=0.0)]  # as a share of the largest value
    logits: Difference
    features: Difference


class ExportManifest(Spec):
    """The content of r3d_fast.json."""

    format: Literal[1]
    r3d_fast: str
    paddle: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    clip: ClipSpec
    augment: AugmentSpec
    eval: EvalSpec
    batch_size: BatchSize
    model: ModelSpec
    precision: Literal["fp32", "fp16", "bf16"]
    program: Program
    inputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1, max_length=1)]
    outputs: Annotated[tuple[TensorEntry, ...], Field(min_length=2, max_length=2)]
    recipe: ClipRecipe | None = None  # exports of before have none
    # Seconds that a clip of the training showed, in the median; exports of before have none.
    clip_seconds: Annotated[float, Field(gt=0.0)] | None = None
    parity: tuple[Parity, ...]
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _check(self) -> ExportManifest:
        for name in (self.program, PARAMETERS):
            if name not in self.files:
                raise ValueError(f"files: {name} is not among them")
        if self.augment.layout != "NCTHW" or self.model.data_format != "NCDHW":
            raise ValueError("exported models take clips channels first: expected layout NCTHW and data_format NCDHW")
        side = self.augment.size_px
        if self.clip.num_frames * side**2 > MOST_PIXELS:
            raise ValueError(f"clip: {self.clip.num_frames} frames of {side} px; expected at most {MOST_PIXELS} pixels")
        wanted = (-1, 3, self.clip.num_frames, side, side)
        if self.inputs[0].shape != wanted:
            raise ValueError(f"inputs: shape {list(self.inputs[0].shape)}, but clip and augment give {list(wanted)}")
        if self.outputs[0].shape != (-1, len(self.classes)):
            raise ValueError(f"outputs: logits {list(self.outputs[0].shape)} for {len(self.classes)} classes")
        if len(self.outputs[1].shape) != 2:
            raise ValueError(f"outputs: features {list(self.outputs[1].shape)}, expected [-1, F]")
        return self

    @property
    def config(self) -> Config:
        """The run's config, as far as predicting depends on it; all other keys have their defaults."""
        return Config(
            clip=self.clip,
            augment=self.augment,
            eval=self.eval,
            model=self.model,
            loader=LoaderSpec(batch_size=self.batch_size),
        )


def is_exported(folder: Path) -> bool:
    """Whether `folder` has an r3d_fast.json, readable or not."""
    return (folder / ABOUT).is_file()


def exported_files(folder: Path) -> list[Path]:
    """The files that make `folder` an exported model; none where it is not one."""
    return [folder / ABOUT, *folder.glob("model.*")] if is_exported(folder) else []


def read_exported(folder: Path) -> ExportManifest:
    """The content of r3d_fast.json in `folder`. Raises CheckpointError where the file is missing or damaged."""
    path = folder / ABOUT
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; it names the classes and describes the clips; copy the whole folder, or export again"
        )
    try:
        size = path.stat().st_size
        if size > _LARGEST_ABOUT:
            raise CheckpointError(f"{path}: {size} bytes, expected at most {_LARGEST_ABOUT}: not an export of r3d-fast")
        values = json.loads(read_regular(path, _LARGEST_ABOUT))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path}: not readable as JSON ({reason}): damaged; export again") from error
    if isinstance(values, dict) and values.get("format") != FORMAT:
        raise CheckpointError(f"{path}: export format {values.get('format')!r}, this version reads {FORMAT}")
    try:
        return ExportManifest.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {_first(error)}: not what r3d-fast export writes; export again") from error


def check_files(folder: Path, about: ExportManifest, names: tuple[str, ...]) -> None:
    """Raise CheckpointError unless the files `names` in `folder` have the sizes and digests that `about` says."""
    for name in names:
        path, wanted = folder / name, about.files[name]
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; copy the whole folder, or export again")
        found = describe_file(path)
        if found.bytes != wanted.bytes:
            raise CheckpointError(
                f"{path}: {found.bytes} bytes, {ABOUT} says {wanted.bytes}: cut short or another file; export again"
            )
        if found.sha256 != wanted.sha256:
            raise CheckpointError(
                f"{path}: SHA-256 differs from that in {ABOUT}: damaged or another file; export again"
            )


def describe_file(path: Path) -> FileEntry:
    """Size and SHA-256 of a file. Raises CheckpointError where it can't be read."""
    try:
        return FileEntry(bytes=path.stat().st_size, sha256=file_digest(path))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error


def as_text(about: ExportManifest) -> str:
    """`about` as the text of r3d_fast.json."""
    values: dict[str, Any] = about.model_dump(mode="json")
    # A list of numbers in one line, as people read it.
    return _NUMBERS.sub(lambda found: " ".join(found[0].split()), json.dumps(values, indent=1)) + "\n"


def _first(error: ValidationError) -> str:
    """The first problem in one line, and how many more there are."""
    problems = error.errors(include_url=False)
    key = ".".join(map(str, problems[0]["loc"]))
    text = problems[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return (f"{key}: " if key else "") + text + more

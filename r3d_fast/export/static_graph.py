"""Writes a model as a static graph, in the form of Paddle 3 or of 2.6, in float32 or half precision."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import EnvironmentProblem
from pipelines.output.files import put_in_place
from r3d_fast.backend.layers import paddle
from r3d_fast.backend.native_output import native_output_hidden
from r3d_fast.backend.paddle import has_newer_graphs, older_graphs
from r3d_fast.export.manifest import INPUT, PARAMETERS, Program

_NAME = "model"
_TYPES = {"fp16": "Half", "bf16": "Bfloat16"}


class Served(paddle.nn.Layer):  # type: ignore[misc]
    """A model in evaluation mode that gives logits and pooled features of clips: this is what is traced."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, clips: Any) -> tuple[Any, Any]:
        """(logits float32 [N, C], features float32 [N, F])."""
        return self.model.logits_and_features(clips)  # type: ignore[no-any-return]


def save_static(model: Any, folder: Path, shape: tuple[int, ...], *, older: bool) -> Program:
    """Write the graph of `model` and its parameters to `folder`, for any number of clips of `shape`.

    Returns the name of the file with the graph. `older`: write the form of 2.6, which 3.x reads too. Don't trace the
    model again afterwards.
    """
    spec = paddle.static.InputSpec([None, *shape], "float32", INPUT)
    with native_output_hidden(), older_graphs() if older else nullcontext():
        paddle.jit.save(Served(model), str(folder / _NAME), input_spec=[spec])
    (folder / f"{PARAMETERS}.info").unlink(missing_ok=True)  # a pickle that only training needs
    return "model.pdmodel" if older or not has_newer_graphs() else "model.json"


def save_half(folder: Path, program: Program, precision: Literal["fp16", "bf16"]) -> None:
    """Replace the float32 model in `folder` by one that stores and computes in half precision, for a GPU.

    Inputs and outputs stay float32. Raises EnvironmentProblem where Paddle converts nothing, as its CPU build does.
    """
    half = folder / "half"
    half.mkdir()
    with native_output_hidden():
        paddle.inference.convert_to_mixed_precision(
            str(folder / program), str(folder / PARAMETERS), str(half / program), str(half / PARAMETERS),
            getattr(paddle.inference.PrecisionType, _TYPES[precision]), paddle.inference.PlaceType.GPU, True,
        )  # fmt: skip
    before, after = ((place / PARAMETERS).stat().st_size for place in (folder, half))
    if after > 0.75 * before:
        raise EnvironmentProblem(
            f"--precision {precision}: Paddle {paddle.__version__} converted nothing (the weights had {before} bytes, "
            f"now {after}); leave --precision out, or use another version of Paddle"
        )
    for name in (program, PARAMETERS):
        put_in_place(half / name, folder / name)
    half.rmdir()

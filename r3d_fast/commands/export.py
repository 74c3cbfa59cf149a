"""The command `r3d-fast export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from r3d_fast.console import counted, print_line, quoted, tell


@click.command("export")
@click.argument("model", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write the model to.")
@click.option("--onnx", is_flag=True, help="Write model.onnx too (needs pip install 'r3d-fast[onnx]').")
@click.option(
    "--precision", type=click.Choice(["fp16", "bf16"]),
    help="Half precision that the exported model computes in (default: float32). Needs a GPU, here and where the model "
    "is used.",
)  # fmt: skip
@click.option(
    "--form", type=click.Choice(["auto", "2.6"]), default="auto", show_default=True,
    help="File format. auto: the format of the installed Paddle; 2.6: one that both Paddle 2.6 and 3.x can read.",
)  # fmt: skip
def export(
    model: Path, out: Path, onnx: bool, precision: Literal["fp16", "bf16"] | None, form: Literal["auto", "2.6"]
) -> None:
    """Export a model for deployment, without its run folder.

    Writes a static Paddle model and a description of how to prepare its clips. RUN is a run folder, a checkpoint or a
    .safetensors file. The exported model is first compared with the trained one; if their outputs differ, nothing is
    written.
    """
    from r3d_fast.export.export import export as run_export

    result = run_export(model, out, onnx=onnx, precision=precision, form=form, say=tell)
    about = result.about
    shape = ", ".join("N" if size == -1 else str(size) for size in about.inputs[0].shape)
    classes = counted(len(about.classes), "class", "classes")
    print_line(f"{out}: {about.model.name}, {classes}, clips float32 [{shape}], {about.precision}")
    for path in sorted(result.folder.iterdir()):
        size = path.stat().st_size
        print_line(f"  {path.name:16s} " + (f"{size / 1e6:7.1f} MB" if size >= 1e6 else f"{size / 1e3:7.1f} kB"))
    for parity in about.parity:
        sizes = ", ".join(map(str, parity.batch_sizes))
        print_line(
            f"{parity.file} in {parity.engine} ({parity.device}), batches of {sizes}: max abs difference "
            f"logits {parity.logits.max_abs:.2g} (of up to {parity.logits.largest:.3g}), "
            f"features {parity.features.max_abs:.2g} (of up to {parity.features.largest:.3g}): "
            f"ok, within {parity.tolerance:g} of the largest"
        )
    print_line(f"predict: r3d-fast predict {quoted(out)} VIDEO...")

"""The command `r3d-fast import-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipelines.errors import UsageError
from r3d_fast.console import print_line
from r3d_fast.weights.path_kinds import other_kind

_THREE = (float, float, float)


@click.command("import-weights")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option(
    "-o", "out", required=True, metavar="OUT.safetensors", type=click.Path(path_type=Path), help="File to write."
)
@click.option("--model", metavar="NAME", help="Name of the network (default: recognised from the file).")
@click.option(
    "--classes", type=click.Path(path_type=Path),
    help="File of class names: one name per line, a classInd.txt, or a CSV.",
)  # fmt: skip
@click.option(
    "--normalize", type=click.Choice(["hara", "kinetics", "torchvision", "imagenet"]),
    help="How the network expects its pixels. hara: 0..255 minus a mean, as in the authors' branch CVPR2018; kinetics: "
    "0..1, normalised with the mean and std of Kinetics, as in their branch master; torchvision: 0..1, with those of "
    "torchvision; imagenet: 0..1, with those of ImageNet (default: by signs in the file).",
)  # fmt: skip
@click.option("--mean", type=_THREE, help="Mean of R, G and B to use instead of the one of --normalize.")
@click.option("--std", type=_THREE, help="Std of R, G and B to use instead of the one of --normalize.")
@click.option(
    "--value-max", type=click.Choice(["1", "255"]),
    help="Largest pixel value, to use instead of the one of --normalize.",
)  # fmt: skip
@click.option(
    "--conv1-t-stride", type=click.IntRange(1, 2), default=1, show_default=True,
    help="Stride of the first convolution in time, which no file tells.",
)  # fmt: skip
@click.option("--no-max-pool", is_flag=True, help="The network has no max pool, which no file tells.")
@click.option("--num-frames", type=click.IntRange(min=1), default=16, show_default=True, help="Frames per clip.")
def import_weights(source: Path, out: Path, value_max: str | None, **options: Any) -> None:
    """Convert a .pth or .pdparams file to .safetensors.

    SRC is a .pth file of 3D-ResNets-PyTorch or torchvision, or a .pdparams file of Paddle. No code in SRC is executed.
    The result can be used by predict, eval and train.
    """
    from r3d_fast.weights.foreign.importer import import_summary
    from r3d_fast.weights.foreign.importer import import_weights as run_import

    kind = "the folder of a run" if source.is_dir() and (source / "checkpoints").is_dir() else other_kind(source)
    if kind is not None:
        raise UsageError(f"{source}: {kind}; expected a .pth file of PyTorch, or a .pdparams file of Paddle")
    imported = run_import(source, out, value_max=int(value_max) if value_max else None, **options)
    for line in import_summary(imported, source):
        print_line(line)

"""`r3d-fast import-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_THREE = (float, float, float)


@click.command("import-weights")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option("-o", "out", required=True, metavar="OUT.safetensors", type=click.Path(path_type=Path), help="Result.")
@click.option("--model", metavar="NAME", help="Which network it is (default: read off the file).")
@click.option("--classes", type=click.Path(path_type=Path), help="Class names: one a line, classInd.txt, or a CSV.")
@click.option(
    "--normalize", type=click.Choice(["hara", "kinetics", "imagenet"]),
    help="How its pixels are scaled. hara: 0..255 less a mean; kinetics, imagenet: 0..1 with their mean and std "
    "(default: guessed from the file).",
)  # fmt: skip
@click.option("--mean", type=_THREE, help="R G B, in place of that scale's own.")
@click.option("--std", type=_THREE, help="R G B, likewise.")
@click.option("--value-max", type=click.Choice(["1", "255"]), help="Pixels are 0..1 or 0..255, likewise.")
@click.option("--num-frames", type=click.IntRange(min=1), default=16, show_default=True, help="Frames a clip.")
def import_weights(source: Path, out: Path, value_max: str | None, **options: Any) -> None:
    """Make a .safetensors of SRC: a .pth of 3D-ResNets-PyTorch, or a .pdparams. No code of SRC is run."""
    from r3d_fast.weights.foreign.importer import import_summary
    from r3d_fast.weights.foreign.importer import import_weights as run_import

    imported = run_import(source, out, value_max=int(value_max) if value_max else None, **options)
    for line in import_summary(imported, source):
        click.echo(line)

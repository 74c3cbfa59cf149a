"""`r3d-fast predict`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.errors import DataError
from r3d_fast.commands.options import write_json


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1, required=True, type=click.Path())
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to name.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the predictions as JSON.")
def predict(model: Path, videos: tuple[str, ...], top: int, json_file: Path | None) -> None:
    """Name what happens in VIDEOS; MODEL is a run folder, a checkpoint or a .safetensors file."""
    from r3d_fast.predict import Predictor

    predictions = Predictor(model)(videos, top=top)
    failed = 0
    for prediction in predictions:
        if prediction.error is not None:
            failed += 1
            print(f"{prediction.video}: error: {prediction.error}", file=sys.stderr)
            continue
        named = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
        click.echo(f"{prediction.video}: {named}")
    write_json(json_file, [prediction.as_json() for prediction in predictions])
    if failed:
        raise DataError(f"{failed} of {len(predictions)} videos could not be read")

"""`r3d-fast models`."""

from __future__ import annotations

from pathlib import Path

import click

from r3d_fast.commands.options import write_json


@click.command()
@click.option("--classes", type=click.IntRange(min=1), default=101, show_default=True, help="Classes of the data set.")
@click.option("--frames", type=click.IntRange(min=1), default=16, show_default=True, help="Frames a clip.")
@click.option("--size", type=click.IntRange(min=1), default=112, show_default=True, help="Side of a clip in pixels.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the table as JSON.")
def models(classes: int, frames: int, size: int, json_file: Path | None) -> None:
    """List the models that model.name may name, and what each costs."""
    from r3d_fast.model_summary import as_table, summarise_all

    summaries = summarise_all(num_classes=classes, frames=frames, size=size)
    click.echo(as_table(summaries))
    clip = {"classes": classes, "frames": frames, "size_px": size}
    write_json(json_file, {**clip, "models": [summary.as_json() for summary in summaries]})

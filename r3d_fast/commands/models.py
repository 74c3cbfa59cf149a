"""The command `r3d-fast models`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.output.files import write_json
from r3d_fast.commands.options import file_option
from r3d_fast.console import lines_beside, tell

if TYPE_CHECKING:
    from r3d_fast.models.cost_table import ModelSummary


@click.command()
@click.option("--classes", type=click.IntRange(min=1), default=101, show_default=True, help="Classes in the data set.")
@click.option("--frames", type=click.IntRange(min=1), default=16, show_default=True, help="Frames per clip.")
@click.option(
    "--size", type=click.IntRange(min=1), default=112, show_default=True, help="Height and width of a clip, in pixels."
)
@file_option("json", "the table")
def models(classes: int, frames: int, size: int, json_file: Path | None) -> None:
    """List the models, with their size, cost and memory.

    The names are those that the config key model.name takes.
    """
    from r3d_fast.models.cost_table import USUAL, stored_summaries, table_lines

    summaries: list[ModelSummary] = []
    clip = {"classes": classes, "frames": frames, "size_px": size}

    def kept() -> Iterator[ModelSummary]:
        for summary in stored_summaries(classes) if clip == {**USUAL, "classes": classes} else _calculated():
            summaries.append(summary)
            yield summary

    def _calculated() -> Iterator[ModelSummary]:
        tell("calculating what each model costs on such clips; this takes some seconds")
        from r3d_fast.models.cost import summarise_all

        yield from summarise_all(num_classes=classes, frames=frames, size=size)

    say = lines_beside(json_file)
    for line in table_lines(kept()):
        say(line)
    write_json(json_file, {**clip, "models": [summary.as_json() for summary in summaries]})

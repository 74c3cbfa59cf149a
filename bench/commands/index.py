"""`bench index`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import data_option, json_option
from bench.commands.output import Output, published_command
from r3d_fast.console import tell


@click.command()
@data_option
@click.option(
    "--videos",
    type=click.IntRange(min=1000),
    metavar="N",
    default=1_000_000,
    show_default=True,
    help="Rows of the large index.",
)
@json_option
def index(data: Path | None, videos: int, json_file: Path | None) -> None:
    """Files indexed a second, and a very large index.

    Of the large index: how long it takes to open and to shuffle, and its memory.
    """
    from bench.studies.index_speed import measure_index

    output = Output(json_file)
    report = measure_index(data, videos, published_command(data), tell)
    output.show(report)

"""`bench report` and `bench compare`: what is made of results files."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import FILE
from r3d_fast.console import print_line


@click.command()
@click.argument("folder", type=FILE, default=Path("bench/results"))
@click.option("--brief", is_flag=True, help="Only clips per second, as in docs/speed.md.")
def report(folder: Path, brief: bool) -> None:
    """Print the tables of the results in FOLDER.

    They are those of its *.json files (default: bench/results), as Markdown.
    """
    from bench.reporting.tables import load_folder, tables

    for line in tables(load_folder(folder), brief=brief).splitlines():
        print_line(line)


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
def compare(a: Path, b: Path) -> None:
    """Say whether B is faster or slower than A.

    A and B are results files of one measurement, say of two commits on one machine. A difference counts where the
    spread of the rounds does not explain it.
    """
    from bench.reporting.comparison import comparison_text
    from bench.reporting.results import load

    for line in comparison_text(load(a), load(b)).splitlines():
        print_line(line)

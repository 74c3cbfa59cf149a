"""`bench report` and `bench compare`: what is made of results files."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import FILE


@click.command()
@click.argument("folder", type=FILE, default=Path("bench/results"))
@click.option("--brief", is_flag=True, help="Only clips per second, as in the README.")
def report(folder: Path, brief: bool) -> None:
    """Print the tables of the results (*.json) in FOLDER."""
    from bench.reporting.tables import load_folder, tables

    click.echo(tables(load_folder(folder), brief=brief), nl=False)


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
def compare(a: Path, b: Path) -> None:
    """Say whether B is faster, slower or no different than A, from the spreads of two results files."""
    from bench.reporting.comparison import comparison_text
    from bench.reporting.results import load

    click.echo(comparison_text(load(a), load(b)))

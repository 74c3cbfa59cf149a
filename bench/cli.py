"""The `bench` command line. Thin: what is measured stands in the module of the same name."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from r3d_fast.cli import run_cli


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Measure r3d-fast on this machine."""


@cli.group()
def loader() -> None:
    """The clip loader."""


@loader.command()
@click.option("--index", "index", required=True, type=click.Path(path_type=Path), help="Index of the videos to read.")
@click.option("--sampling", type=click.Choice(["segments", "consecutive"]), default="segments", show_default=True)
@click.option("--workers", type=click.IntRange(min=0), help="Decoding processes (default: one a usable CPU).")
@click.option("--repeats", type=click.IntRange(min=5), default=5, show_default=True, help="Timed passes.")
def throughput(index: Path, sampling: str, workers: int | None, repeats: int) -> None:
    """Clips per second of whole epochs, workers started and warm: median, lowest and highest."""
    from bench.loader import measure

    rates = measure(index, sampling=sampling, workers=workers, repeats=repeats)
    click.echo(
        f"{sampling}: {rates[len(rates) // 2]:.1f} clips/s ({rates[0]:.1f} to {rates[-1]:.1f}, {len(rates)} passes)"
    )


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_cli(cli, sys.argv[1:], "bench"))


if __name__ == "__main__":
    main()

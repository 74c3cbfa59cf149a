"""The `bench` command line: its commands. What they measure stands in the folders beside this file."""

from __future__ import annotations

import sys

import click

from bench.commands.gpu import gpu
from bench.commands.index import index
from bench.commands.loader import loader
from bench.commands.reports import compare, report
from bench.commands.studies import studies
from bench.commands.train import train
from pipelines.output.descriptors import hold_standard_streams
from pipelines.plain_text import speak_plainly
from r3d_fast.backend.restart import restart_with_cuda_libraries
from r3d_fast.cli import run_cli
from r3d_fast.interrupt import take_interrupts


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Measure r3d-fast on this machine."""


for command in (gpu, loader, train, index, studies, report, compare):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit with its code."""
    hold_standard_streams()
    take_interrupts("bench")
    restart_with_cuda_libraries(("bench", "bench.cli"))
    speak_plainly()
    sys.exit(run_cli(cli, sys.argv[1:], "bench"))


if __name__ == "__main__":
    main()

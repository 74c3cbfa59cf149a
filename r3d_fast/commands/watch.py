"""The command `r3d-fast watch`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Show the run as it is now, and end.")
def watch(run: Path, once: bool) -> None:
    """Show the curves of the run in the folder RUN while it trains.

    Loss, top1, learning rate, clips/s and the time spent waiting for data, in the terminal. Only files are read, so the
    run may train on another machine that shares the folder, and may not have begun. The command ends when the run does.
    In a file, it writes a line for each evaluation.
    """
    from r3d_fast.watching.following import follow, show_once

    if once:
        show_once(run)
    else:
        follow(run)

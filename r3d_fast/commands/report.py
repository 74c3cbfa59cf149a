"""The command `r3d-fast report`."""

from __future__ import annotations

from pathlib import Path

import click

from r3d_fast.console import lines_beside, tell


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out", "target", type=click.Path(path_type=Path), metavar="FILE.html",
    help="Page to write (default: report.html in the folder of the run; of several runs in the current folder).",
)  # fmt: skip
def report(runs: tuple[Path, ...], target: Path | None) -> None:
    """Write what one run came to, or several side by side, as an HTML page.

    The page has the curves, the figures of each class, the confusion matrix, the videos that the model gets wrong, the
    settings and the machine. It is one file, which any browser shows without a network.
    """
    from r3d_fast.report.report import REPORT, write_report

    say = lines_beside(target, others=True)
    target = target or (runs[0] / REPORT if len(runs) == 1 else Path(REPORT))
    tell(*(f"warning: {problem}" for problem in write_report(runs, target)))
    say(f"wrote {target}")

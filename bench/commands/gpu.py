"""`bench gpu`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from bench.commands.options import FILE
from r3d_fast.console import print_line, tell


@click.command()
@click.argument("data", type=FILE)
@click.option(
    "--out", type=FILE, metavar="DIR", default=Path("r3d-fast-gpu"), show_default=True, help="Everything goes there."
)
@click.option("--lists", type=FILE, metavar="DIR", help="DATA's official lists (ucfTrainTestlist), for --full.")
@click.option(
    "--split", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Which of the splits."
)
@click.option(
    "--videos", type=click.IntRange(min=64), metavar="N", default=640, show_default=True,
    help="Measure speed on no more of DATA's videos.",
)  # fmt: skip
@click.option("--steps", metavar="NAME[,NAME...]", help="Only these steps, also if they are done already.")
@click.option("--full", is_flag=True, help="Then train and evaluate the reference recipe.")
@click.option("--dry-run", is_flag=True, help="Print the commands for a shell, run none.")
def gpu(
    data: Path, out: Path, lists: Path | None, split: int, videos: int, steps: str | None, full: bool, dry_run: bool
) -> int:
    """Find out all that this machine's NVIDIA GPU can tell.

    DATA is a folder of videos, a folder a class. The steps are machine, doctor, kernels, parity, loader, tests, train
    and full. Each runs as processes of its own, has a time limit, and can fail alone. In --out are then report.txt,
    which says what the results decide, and r3d-fast-gpu-HOST-DATE.tgz, to be sent to whoever asked for it. The same
    command goes on where it was stopped.
    """
    from bench.gpu.plan import V100, GpuSettings, check_steps, plan
    from bench.gpu.session import check_settings, find_card, measure_gpu

    asked = () if steps is None else check_steps([name.strip() for name in steps.split(",")])
    settings = GpuSettings(
        data.absolute(), out.absolute(), None if lists is None else lists.absolute(), split, videos, asked, full
    )
    if dry_run:
        settings = check_settings(settings, tell)
        card = find_card()
        if card.problem:
            tell(f"no GPU here ({card.problem}): these are the commands for a V100")
        for name in ("LD_LIBRARY_PATH", "PYTHONPATH"):
            if name in os.environ:
                print_line(f"export {name}={shlex.quote(os.environ[name])}")
        print_line(f"mkdir -p {shlex.quote(str(settings.out / 'results'))}")
        for part in plan(settings, V100 if card.problem else card):
            for line in part.pasted.splitlines():
                print_line(line)
        return 0
    text, code = measure_gpu(settings, tell)
    for line in ("", *text.splitlines()):
        print_line(line)
    return code

"""The command `r3d-fast train`."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.errors import UsageError
from r3d_fast.commands.options import config_option, override_option


@click.command()
@config_option
@override_option
@click.option(
    "--run", type=click.Path(path_type=Path), help="Folder for the results (default: runs/NAME, NAME being the config)."
)
@click.option(
    "--resume", metavar="auto|DIR",
    help="Continue an interrupted run. auto: the run of --run, or start it if it has no checkpoint; DIR: the run in "
    "that folder.",
)  # fmt: skip
@click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine that train together, one per GPU.")
def train(
    config: str | None, overrides: tuple[str, ...], run: Path | None, resume: str | None, nproc: int | None
) -> int | None:
    """Train a model.

    Example: r3d-fast train -c ucf101_r3d18 -o data.root=UCF-101
    """
    from r3d_fast.config.config import load_config
    from r3d_fast.ranks.launcher import is_launched, launch, rank_and_count, tell_launcher
    from r3d_fast.training.train import train as run_training

    if resume is not None and resume != "auto":
        if run is not None and Path(resume).resolve() != run.resolve():
            raise UsageError(
                f"--resume {resume} and --run {run} name different runs; give only one of them, or --resume auto"
            )
        run = Path(resume)
        if not (run / "config.yaml").is_file():
            raise UsageError(
                f"--resume {resume}: not a run folder (no config.yaml there); expected auto or a run folder"
            )
        config = config or str(run / "config.yaml")
    if config is None:
        raise UsageError("no config given; expected -c NAME or -c FILE.yaml, such as -c ucf101_r3d18")
    chosen = load_config(config, overrides)
    run = run or Path("runs") / Path(config).stem
    if nproc is not None and nproc > 1:
        given = ["train", "-c", config, "--run", str(run), *(part for value in overrides for part in ("-o", value))]
        return launch([*given, *(["--resume", "auto"] if resume else [])], nproc, run / "ranks", click.echo)
    result = run_training(chosen, run=run, resume=resume is not None)
    last = "" if result.last_top1 is None else f", last top1 {100 * result.last_top1:.2f} %"
    text = (
        f"{result.run}: {result.steps} steps, best top1 {100 * result.best_top1:.2f} %{last}\n"
        f"evaluate: r3d-fast eval --run {result.run}\n"
        f"predict:  r3d-fast predict {result.run} VIDEO..."
    )
    if rank_and_count()[0] == 0:
        tell_launcher("result", text)
        if not is_launched():
            click.echo(text)
    return None

"""The command `r3d-fast train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from pipelines.errors import UsageError
from r3d_fast.commands.options import FROM_SCRATCH, config_option, folder_config, override_option
from r3d_fast.commands.train.data_source import data_overrides
from r3d_fast.commands.train.fold_table import print_folds
from r3d_fast.commands.train.short_options import load_with_short_options, overrides_of, short_options
from r3d_fast.console import counted, print_line, quoted, tell
from r3d_fast.ranks.launcher import is_launched, launch, rank_and_count, tell_launcher
from r3d_fast.runs.run_names import RUNS, check_run_name, claimed_run, newest_run


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@config_option
@override_option
@short_options
@click.option("--name", help=f"Name of the run: its folder is {RUNS}/NAME (default: that of DATA, or of the config).")
@click.option(
    "--run", type=click.Path(path_type=Path), help=f"Folder for the results (default: {RUNS}/NAME, or NAME-2, NAME-3 "
    "and so on where there is such a run already)."
)  # fmt: skip
@click.option(
    "--resume", metavar="auto|DIR",
    help="Continue an interrupted run. auto: the run of --run, else the newest one of that name, or start it if there "
    "is none; DIR: the run in that folder.",
)  # fmt: skip
@click.option(
    "--folds", type=click.IntRange(min=2), metavar="N",
    help="Divide the videos into N folds, and train N models, each tested on one fold and trained on the others.",
)  # fmt: skip
@click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine that train together, one per GPU.")
def train(
    data: Path | None, config: str | None, overrides: tuple[str, ...], name: str | None, run: Path | None,
    resume: str | None, folds: int | None, nproc: int | None, **short: str | None,
) -> int | None:  # fmt: skip
    """Train a model on DATA: a folder with a folder of videos for each class, or the index of one.

    A folder is indexed where it is not yet. Without -c, a config for such folders is chosen. With -c, the config may
    name the videos, and DATA be left out.

    Examples: r3d-fast train videos, r3d-fast train -c ucf101_r3d18 -o data.root=UCF-101
    """
    run = _run_to_resume(resume, run, name)
    given = [*overrides_of(short, overrides), *overrides]
    name = _name_of(name, data, config)
    if resume == "auto" and run is None and name is not None and (run := newest_run(name)) is not None:
        tell(f"going on with {run}, the newest run of that name")
    if data is not None:
        given += data_overrides(data, overrides, tell, keeps_index=resume is not None and _is_run(run))
    config = config or _config_of(data, run if resume else None, short["model"], given)
    chosen = load_with_short_options(config, given, short)
    with _folder_of(run, name or "") as folder:
        if not is_launched() and rank_and_count()[0] == 0:
            tell(f"training as {config} says, in {folder}")
        folds = _folds_in(folder, folds, nproc)
        if nproc is not None and nproc > 1:
            from r3d_fast.runs.fold_results import start_hint
            from r3d_fast.runs.folder import check_run_folder

            check_run_folder(folder, is_new=resume is None)  # before the launcher writes its logs there
            again = ["train", "-c", config, "--run", str(folder), *(part for value in given for part in ("-o", value))]
            again += ["--resume", "auto"] if resume else []
            return launch(again, nproc, folder / "ranks", print_line, start_hint(folder))
        from r3d_fast.training.train import train as run_training

        run_one = partial(run_training, resume=resume is not None)
        if folds is not None:
            from r3d_fast.training.folds import train_folds

            print_folds(train_folds(chosen, folder, folds, run_one, resume=resume is not None), folder, print_line)
            return None
        result = run_one(chosen, run=folder)
    last = "" if result.last_top1 is None else f", last top1 {100 * result.last_top1:.2f} %"
    text = (
        f"{result.run}: {counted(result.steps, 'step')}, best top1 {100 * result.best_top1:.2f} %{last}\n"
        + (f"look:     {quoted(result.run / 'report.html')}\n" if (result.run / "report.html").is_file() else "")
        + f"evaluate: {quoted('r3d-fast', 'eval', '--run', result.run)}\n"
        f"predict:  {quoted('r3d-fast', 'predict', result.run)} VIDEO..."
    )
    if rank_and_count()[0] == 0:
        tell_launcher("result", text)
        if not is_launched():
            for line in text.split("\n"):
                print_line(line)
    return None


def _run_to_resume(resume: str | None, run: Path | None, name: str | None) -> Path | None:
    """The folder of the run, where --run or --resume name it. Raises UsageError where the options contradict."""
    if name is not None and run is not None:
        raise UsageError(f"--name {name} and --run {run} both say where the run lies; give only one of them")
    if resume is None or resume == "auto":
        return run
    if run is not None and Path(resume).resolve() != run.resolve():
        raise UsageError(
            f"--resume {resume} and --run {run} name different runs; give only one of them, or --resume auto"
        )
    if not _is_run(Path(resume)):
        raise UsageError(f"--resume {resume}: not a run folder (no config.yaml there); expected auto or a run folder")
    return Path(resume)


def _is_run(folder: Path | None) -> bool:
    """Whether a run has begun in `folder`."""
    return folder is not None and (folder / "config.yaml").is_file()


def _name_of(name: str | None, data: Path | None, config: str | None) -> str | None:
    """The name of the run: as given, or that of the config, or else of the videos; None where there is neither."""
    if name is not None:
        return check_run_name(name)
    if config is not None:
        path = Path(config)
        return path.parent.name if path.name == "config.yaml" and path.parent.name else path.stem  # that of a run
    return None if data is None else (data.resolve().stem or "videos")


def _config_of(data: Path | None, run: Path | None, model: str | None, overrides: Sequence[str]) -> str:
    """The config where -c names none: that of the `run` to go on with, or one for a folder of videos.

    That is the one for fine-tuning where `overrides` name weights, or where known ones were fetched. Raises UsageError
    where there is neither such a run nor `data`.
    """
    if run is not None and _is_run(run):
        return str(run / "config.yaml")
    if data is None:
        raise UsageError(
            "nothing to train on: expected a folder of videos (r3d-fast train videos), a config (-c ucf101_r3d18), or "
            f"a run to go on with (--resume {RUNS}/NAME)"
        )
    from r3d_fast.weights.known_weights import FINETUNED, fetch_command, weights_at_hand

    config = folder_config(overrides)
    if any(override.startswith("init.weights=") for override in overrides):
        return config
    if model is not None:
        return FROM_SCRATCH
    if config == FROM_SCRATCH:
        tell(
            f"starting from random weights; to fine-tune {FINETUNED}, which takes fewer videos, first run: "
            f"{fetch_command(FINETUNED)}"
        )
    else:
        tell(f"fine-tuning {weights_at_hand()}; to start from random weights: -c {FROM_SCRATCH}")
    return config


def _folds_in(folder: Path, folds: int | None, nproc: int | None) -> int | None:
    """How many folds are trained in `folder`: as --folds says, or as it was begun; None if there are none.

    Raises UsageError where several processes would have to train them.
    """
    from r3d_fast.runs.fold_results import stored_folds

    count = folds or stored_folds(folder)
    if count is not None and (rank_and_count()[1] > 1 or (nproc or 1) > 1):
        raise UsageError(
            f"{count} folds are trained by one process; to train fold 1 by several, leave --folds out and set "
            f"-o data.train_split=without-fold-1-of-{count} -o data.eval_split=fold-1-of-{count}"
        )
    return count


@contextmanager
def _folder_of(run: Path | None, name: str) -> Iterator[Path]:
    """The folder of the run: `run`, or else a new one called `name`, which only the first process makes."""
    if run is not None:
        yield run
    elif rank_and_count()[0] > 0:
        yield RUNS / name
    else:
        with claimed_run(name) as folder:
            yield folder

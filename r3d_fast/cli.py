"""The command line. Thin: each command says what it takes and calls one function.

Paddle, DALI and PyAV are imported inside commands, so that `--help` answers at once. Results go to stdout, everything
else to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.errors import DataError, R3DFastError, UsageError
from r3d_fast import __version__
from r3d_fast.launch import report_exit

_EXIT_INTERNAL = 1
_config = click.option("-c", "--config", "config", metavar="CFG", help="A shipped config by name, or a YAML file.")
_override = click.option(
    "-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value; repeatable."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="r3d-fast")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Train 3D ResNets on action recognition straight from video files."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)


@cli.command()
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where it all goes."
)
def demo(folder: Path) -> None:
    """Make a small data set, train on it, evaluate, predict: minutes on a laptop, no GPU needed."""
    from r3d_fast.demo import run_demo

    run_demo(folder, click.echo)


@cli.group()
def data() -> None:
    """Data sets: index, make."""


@data.command("index")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--lists", type=click.Path(path_type=Path), help="Folder of UCF-101 or HMDB-51 lists, or a CSV/TSV file.")
@click.option("--split", type=int, help="Which split of the lists (default 1).")
@click.option(
    "--val-fraction", type=float, default=0.2, show_default=True, help="Held out where nothing says what to test on."
)
@click.option("--index", "index", type=click.Path(path_type=Path), help="Where the index goes (default: beside ROOT).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one a usable CPU).")
@click.option("--follow-links", is_flag=True, help="Take symlinks that lead out of ROOT.")
@click.option("--allow-partial", is_flag=True, help="Take truncated videos for what is left of them.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the summary as JSON.")
def data_index(root: Path, json_file: Path | None, **options: Any) -> None:
    """Index the videos of ROOT: a folder a class, UCF-101, HMDB-51, or a CSV of path,label[,split]."""
    from pipelines.index import SUFFIX, VideoIndex
    from r3d_fast.runlog import Progress
    from r3d_fast.summary import index_summary, print_index

    bar: list[Progress] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress("files", total, 0, max(1, total // 10)))
        bar[0].step(done=done)

    try:
        index = VideoIndex.build(root, progress=progress, **options)
    finally:
        for shown in bar:
            shown.__exit__(None, None, None)
    for warning in index.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options["index"] is None and index.path.parent != root.resolve().parent:
        print(
            f"{root.resolve().parent} can't be written: the index ({root.name}{SUFFIX}) is in the current folder",
            file=sys.stderr,
        )
    summary = index_summary(index)
    print_index(summary, click.echo)
    _write_json(json_file, summary)
    if len(index) == 0:
        raise DataError(f"{root}: no usable video among {len(index.quarantined)} files; the table says why")


@data.command("make-demo")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--videos-per-class", type=int, default=None, help="Training videos of each motion.")
@click.option("--test-per-class", type=int, default=None, help="Test videos of each motion.")
@click.option("--seed", type=int, default=0, show_default=True)
def data_make_demo(root: Path, **options: int | None) -> None:
    """Write the demo's videos, in which only the motion tells the class, to ROOT."""
    from r3d_fast.demo_data import make_demo_dataset

    make_demo_dataset(root, **{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
    click.echo(root)


@cli.command()
@_config
@_override
@click.option("--run", type=click.Path(path_type=Path), help="Run folder (default: runs/NAME of the config).")
@click.option("--resume", metavar="auto|DIR", help="auto: go on if the run has a checkpoint; DIR: go on with that run.")
@click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine that train together, one a GPU.")
def train(
    config: str | None, overrides: tuple[str, ...], run: Path | None, resume: str | None, nproc: int | None
) -> int | None:
    """Train a model: -c ucf101_r3d18 -o data.root=UCF-101."""
    from r3d_fast.config import load_config
    from r3d_fast.launch import is_reported, launch, rank_and_count, report
    from r3d_fast.train import train as run_training

    if resume is not None and resume != "auto":
        if run is not None and Path(resume).resolve() != run.resolve():
            raise UsageError(f"--resume {resume} and --run {run} name two runs; give one, or --resume auto")
        run = Path(resume)
        if not (run / "config.yaml").is_file():
            raise UsageError(f"--resume {resume}: no run there (no config.yaml); expected auto or a run folder")
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
    told = (
        f"{result.run}: {result.steps} steps, best top1 {100 * result.best_top1:.2f} %{last}\n"
        f"evaluate: r3d-fast eval --run {result.run}\n"
        f"predict:  r3d-fast predict {result.run} VIDEO..."
    )
    if rank_and_count()[0] == 0:
        report("result", told)
        if not is_reported():
            click.echo(told)
    return None


@cli.command("eval")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: its best weights, its config.")
@_config
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to evaluate with -c.")
@_override
@click.option("--split", help="Split of the index (default: data.eval_split).")
@click.option("--protocol", type=click.Choice(["clip", "video"]), help="clip: one clip a video; video: every window.")
@click.option("--views", type=click.IntRange(min=1), help="Clips a video.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def evaluate(
    run: Path | None, config: str | None, weights: Path | None, overrides: tuple[str, ...], split: str | None,
    protocol: str | None, views: int | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Evaluate a run, or weights on the data of a config; says how many of how many videos it could read."""
    from r3d_fast.checkpoint import find_weights
    from r3d_fast.config import load_config
    from r3d_fast.evaluate import evaluate as run_evaluation
    from r3d_fast.evaluate import report
    from r3d_fast.launch import rank_and_count
    from r3d_fast.runlog import Progress
    from r3d_fast.summary import print_evaluation

    if (run is None) == (weights is None) or (weights is not None and config is None):
        raise UsageError("expected either --run DIR, or -c CFG with --weights FILE")
    if run is not None and config is None:
        config = str(run / "config.yaml")
    if protocol is not None and views is not None:
        raise UsageError("--protocol and --views both say how many clips a video; give one")
    count = {"clip": "1", "video": "all", None: str(views) if views else None}[protocol]
    assert config is not None
    model = run or weights
    assert model is not None
    find_weights(model)
    chosen = load_config(config, [*overrides, *([f"eval.views={count}"] if count else [])])
    bar: list[Progress] = []

    def on_batch(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress("eval", total, 0, max(1, total // 10)))
        bar[0].step(done=done)

    try:
        evaluation, classes = run_evaluation(model, chosen, split=split, on_batch=on_batch)
    finally:
        for shown in bar:
            shown.__exit__(None, None, None)
    if rank_and_count()[0] == 0:
        print_evaluation(evaluation, classes, click.echo)
        _write_json(json_file, report(evaluation, classes))
    if evaluation.bad:
        raise DataError(
            f"{len(evaluation.bad)} clips could not be read; the figures are of the others; "
            f"first: {evaluation.bad[0].reason}"
        )


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1, required=True, type=click.Path())
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to name.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the predictions as JSON.")
def predict(model: Path, videos: tuple[str, ...], top: int, json_file: Path | None) -> None:
    """Name what happens in VIDEOS; MODEL is a run folder, a checkpoint or a .safetensors file."""
    from r3d_fast.predict import Predictor

    predictions = Predictor(model)(videos, top=top)
    failed = 0
    for prediction in predictions:
        if prediction.error is not None:
            failed += 1
            print(f"{prediction.video}: error: {prediction.error}", file=sys.stderr)
            continue
        named = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
        click.echo(f"{prediction.video}: {named}")
    _write_json(json_file, [prediction.as_json() for prediction in predictions])
    if failed:
        raise DataError(f"{failed} of {len(predictions)} videos could not be read")


@cli.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def doctor(json_: bool) -> int:
    """Say what this machine can do and how to mend what is missing; exit code 4 if it can't train."""
    from r3d_fast.doctor import as_json, as_text, examine

    diagnosis = examine()
    click.echo(json.dumps(as_json(diagnosis), indent=1) if json_ else as_text(diagnosis, sys.stdout.encoding))
    return diagnosis.exit_code


def _write_json(path: Path | None, values: Any) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror}") from error


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = run_cli(cli, arguments, "r3d-fast")
    report_exit(code)
    sys.exit(code)


def run_cli(command: Callable[..., Any], arguments: list[str], name: str) -> int:
    """The exit code of a click command; an error is one line on stderr (with --debug its traceback too)."""
    debug = "--debug" in arguments
    try:
        result = command(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except (BrokenPipeError, SystemExit):
        # Whoever read us has gone (click makes a SystemExit of that): what is left to write goes nowhere, quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except R3DFastError as error:
        _say(name, str(error), debug)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        _say(name, f"internal error: {type(error).__name__}: {error} (--debug shows where)", debug)
        return _EXIT_INTERNAL


def _say(name: str, text: str, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    for line in text.splitlines():
        # Names from a disk may hold bytes that this terminal can't show.
        shown = line.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding or "utf-8")
        print(f"{name}: {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()

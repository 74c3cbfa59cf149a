"""The `bench` command line. Thin: what is measured stands in the module of the same name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.errors import UsageError
from r3d_fast.cli import run_cli

if TYPE_CHECKING:
    from bench.results import Report

_file = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Measure r3d-fast on this machine."""


@cli.group()
def loader() -> None:
    """The clip loader."""


@loader.command()
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option(
    "--sampling", type=click.Choice(["segments", "consecutive", "both"]), default="both", show_default=True,
    help="Which frames make a clip.",
)  # fmt: skip
@click.option("--workers", metavar="N[,N...]", help="Decoding processes; several: one run each (default: usable CPUs).")
@click.option(
    "--peers", is_flag=False, flag_value="all", metavar="[NAME,...]",
    help="Measure the loaders that a user would pick instead too: all that are installed, or those named.",
)  # fmt: skip
@click.option("--repeats", metavar="K[,K...]", help="Measure loader.repeats K too: K clips from each decode pass.")
@click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Turns of each contender.")
@click.option("--batches", type=click.IntRange(min=1), default=12, show_default=True, help="Batches timed in a turn.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips a batch.")
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
@click.option("--plot", type=_file, metavar="F", help="Draw a bar chart (.png or .svg).")
def throughput(
    data: Path | None,
    sampling: str,
    workers: str | None,
    peers: str | None,
    repeats: str | None,
    rounds: int,
    batches: int,
    batch_size: int,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Clips per second of the loader, its stages, its ceiling, and how many times a peer's that is."""
    from bench import chart, report, results
    from bench.loader import Settings, measure
    from bench.peers import find
    from pipelines.probing import usable_cpus

    usable, missing = find(None if peers == "all" else [p.strip() for p in peers.split(",")]) if peers else ([], {})
    settings = Settings(
        data=data,
        samplings=("segments", "consecutive") if sampling == "both" else (sampling,),
        workers=_counts("--workers", workers) if workers else (usable_cpus(),),
        peers=tuple(usable),
        missing=tuple(missing.items()),
        repeats=_counts("--repeats", repeats) if repeats else (),
        rounds=rounds,
        batches=batches,
        batch_size=batch_size,
    )
    for file in (json_file, plot):
        if file is not None and not file.resolve().parent.is_dir():
            raise UsageError(f"{file}: no such folder to write to; make it first")
    if plot is not None:
        chart.figure_class(plot)  # before minutes of measurement
    measured = measure(settings, _command(data), lambda text: click.echo(text, err=True))
    click.echo(f"{measured.machine.in_words()}; batch {batch_size}, {settings.num_frames} frames")
    for run in measured.runs:
        click.echo("\n" + report.terminal(run))
    click.echo(_rest(measured))
    if json_file is not None:
        results.save(measured, json_file)
    if plot is not None:
        chart.draw(measured, plot)


@loader.command()
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option("--clips", type=click.IntRange(min=1000), default=20000, show_default=True, help="Clips to load.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoding processes (default: usable CPUs).")
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
def soak(data: Path | None, clips: int, workers: int | None, json_file: Path | None) -> None:
    """Memory and open files of the loader over thousands of clips: what grows."""
    from bench.scale import soak
    from pipelines.probing import usable_cpus

    _show(soak(data, clips, workers or usable_cpus(), _command(data), lambda t: click.echo(t, err=True)), json_file)


@cli.command()
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option(
    "--videos", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Rows of the large index."
)
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
def index(data: Path | None, videos: int, json_file: Path | None) -> None:
    """Files indexed a second, and how a very large index opens and shuffles."""
    from bench.scale import measure_index

    _show(measure_index(data, videos, _command(data), lambda text: click.echo(text, err=True)), json_file)


@cli.command("report")
@click.argument("folder", type=_file, default=Path("bench/results"))
@click.option("--brief", is_flag=True, help="Only clips per second, as in the README.")
def report_command(folder: Path, brief: bool) -> None:
    """Print the tables of the results (*.json) in FOLDER."""
    from bench.report import load_folder, tables

    click.echo(tables(load_folder(folder), brief=brief), nl=False)


@cli.command("compare")
@click.argument("a", type=_file)
@click.argument("b", type=_file)
def compare_command(a: Path, b: Path) -> None:
    """Say whether B is faster, slower or no different than A, from the spreads of two results files."""
    from bench.compare import as_text
    from bench.results import load

    click.echo(as_text(load(a), load(b)))


def _counts(option: str, text: str) -> tuple[int, ...]:
    """The numbers of `1,2,4`, given for `option`. Raises UsageError for anything else."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (0,)
    if min(counts) < 1 or len(set(counts)) < len(counts):
        raise UsageError(f"{option} {text}: expected numbers of at least 1, each once, such as 2 or 1,2,4")
    return counts


def _command(data: Path | None) -> str:
    """The command line as it may be published: of the data's path only the name."""
    words = ["bench"]
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if data is not None and value == str(data):
            word = f"{name}{equals}{data.resolve().name}"
        words.append(data.resolve().name if data is not None and word == str(data) else Path(word).name)
    return shlex.join(words)


def _rest(measured: Report) -> str:
    """What is to be said below the tables."""
    lines = ["", *(f"left out: {clip['path']}: {clip['reason']}" for clip in measured.excluded)]
    if measured.excluded:
        lines.append(f"left out in all: {len(measured.excluded)} videos")
    for name, line in measured.missing.items():
        lines.append(f"not installed: {name}: {line}")
    for name, value in measured.extra.items():
        shown = (
            f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if isinstance(value, dict) else value
        )
        lines.append(f"{name}: {shown}")
    return "\n".join(lines)


def _show(values: dict[str, object], json_file: Path | None) -> None:
    """Print figures that are no comparison, and write them."""
    import json

    from bench.report import tables
    from bench.results import OtherReport, building

    click.echo(tables([OtherReport(str(values["kind"]), values)]), nl=False)
    if json_file is not None:
        with building(json_file) as unfinished:
            unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_cli(cli, sys.argv[1:], "bench"))


if __name__ == "__main__":
    main()

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
    from bench.reporting.results import Report

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
@click.option("--videos", type=click.IntRange(min=1), help="Use no more of ROOT's videos, spread over all of them.")
@click.option(
    "--sampling", type=click.Choice(["segments", "consecutive", "both"]), default="both", show_default=True,
    help="Which frames make a clip.",
)  # fmt: skip
@click.option("--workers", metavar="N[,N...]", help="Decoding processes; several: one run each (default: usable CPUs).")
@click.option(
    "--peers", is_flag=False, flag_value="all", metavar="[NAME,...]",
    help="Measure the loaders that a user would pick instead too: all that are installed, or those named.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True,
    help="Where batches go; gpu: NVDEC, hybrid, and CPU decoding with GPU augmenting stand beside each other.",
)  # fmt: skip
@click.option("--decoder", metavar="NAME[,NAME...]", help="Measure these values of loader.decoder too.")
@click.option("--repeats", metavar="K[,K...]", help="Measure loader.repeats K too: K clips from each decode pass.")
@click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Turns of each contender.")
@click.option("--batches", type=click.IntRange(min=1), default=12, show_default=True, help="Batches timed in a turn.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips a batch.")
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
@click.option("--plot", type=_file, metavar="F", help="Draw a bar chart (.png or .svg).")
def throughput(
    data: Path | None,
    videos: int | None,
    sampling: str,
    workers: str | None,
    peers: str | None,
    device: str,
    decoder: str | None,
    repeats: str | None,
    rounds: int,
    batches: int,
    batch_size: int,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Clips per second of the loader, its stages, its ceiling, and how many times a peer's that is."""
    from bench.loader.measurement import DECODERS, Settings, measure
    from bench.loader.peers import find
    from bench.reporting import tables as report
    from pipelines.machine.cpus import usable_cpus

    usable, missing = find(None if peers == "all" else [p.strip() for p in peers.split(",")]) if peers else ([], {})
    settings = Settings(
        data=data,
        videos=videos,
        samplings=("segments", "consecutive") if sampling == "both" else (sampling,),
        workers=_counts("--workers", workers) if workers else (usable_cpus(),),
        peers=tuple(usable),
        missing=tuple(missing.items()),
        repeats=_counts("--repeats", repeats) if repeats else (),
        decoders=_names("--decoder", decoder, DECODERS) if decoder else (),
        device=device,
        rounds=rounds,
        batches=batches,
        batch_size=batch_size,
    )
    _check_files(json_file, plot)
    measured = measure(settings, _command(data), lambda text: click.echo(text, err=True))
    click.echo(f"{measured.machine.in_words()}; batch {batch_size}, {settings.num_frames} frames")
    for run in measured.runs:
        click.echo("\n" + report.terminal(run))
    click.echo(_rest(measured))
    _write(measured, json_file, plot)


@loader.command()
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option("--clips", type=click.IntRange(min=1000), default=20000, show_default=True, help="Clips to load.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoding processes (default: usable CPUs).")
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
def soak(data: Path | None, clips: int, workers: int | None, json_file: Path | None) -> None:
    """Memory and open files of the loader over thousands of clips: what grows."""
    from bench.studies.scale import soak
    from pipelines.machine.cpus import usable_cpus

    _show(soak(data, clips, workers or usable_cpus(), _command(data), lambda t: click.echo(t, err=True)), json_file)


@cli.group()
def train() -> None:
    """Training."""


@train.command("throughput")
@click.option(
    "-c",
    "--config",
    default="ucf101_r3d18",
    show_default=True,
    metavar="CFG",
    help="A shipped config by name, or a YAML file.",
)
@click.option("-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value; repeatable.")
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option("--videos", type=click.IntRange(min=1), help="Use no more of ROOT's videos, spread over all of them.")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Where it trains.")
@click.option("--precision", metavar="P[,P...]", help="fp32, bf16, fp16 (default: fp32; on a GPU all that it has).")
@click.option("--layout", metavar="L[,L...]", help="NCDHW, NDHWC (default: the config's; on a GPU both).")
@click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Turns of each contender.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps timed in a turn (default: 2; on a GPU 20).")
@click.option("--batch-size", type=click.IntRange(min=1), help="Clips a batch (default: 8; on a GPU the config's).")
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
@click.option("--plot", type=_file, metavar="F", help="Draw a bar chart (.png or .svg).")
def train_throughput(
    config: str,
    overrides: tuple[str, ...],
    data: Path | None,
    videos: int | None,
    device: str,
    precision: str | None,
    layout: str | None,
    rounds: int,
    steps: int | None,
    batch_size: int | None,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Clips per second of training, beside the model without data and the loader without a model."""
    from bench.reporting import tables as report
    from bench.reporting import train_tables as train_report
    from bench.training.measurement import PRECISIONS, Settings, measure
    from r3d_fast.config.config import LAYOUT_OF

    on_cpu = device == "cpu"
    settings = Settings(
        source=config,
        overrides=overrides,
        data=data,
        videos=videos,
        device=device,
        precisions=_names("--precision", precision or ("fp32" if on_cpu else ",".join(PRECISIONS)), PRECISIONS),
        layouts=_names("--layout", layout, tuple(LAYOUT_OF)) if layout else (),
        batch_size=batch_size,
        rounds=rounds,
        steps=steps or (2 if on_cpu else 20),
    )
    _check_files(json_file, plot)
    measured = measure(settings, _command(data), lambda text: click.echo(text, err=True))
    batch = measured.settings["batch_size"]
    click.echo(f"{measured.machine.in_words()}; {train_report.subject(measured)}; batch {batch}")
    for run in measured.runs:
        click.echo("\n" + report.terminal(run))
    click.echo("\n" + train_report.terminal(measured))
    click.echo(_rest(measured))
    _write(measured, json_file, plot)


@cli.command()
@click.option("--data", type=_file, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own).")
@click.option(
    "--videos", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Rows of the large index."
)
@click.option("--json", "json_file", type=_file, metavar="F", help="Write all figures as JSON.")
def index(data: Path | None, videos: int, json_file: Path | None) -> None:
    """Files indexed a second, and how a very large index opens and shuffles."""
    from bench.studies.scale import measure_index

    _show(measure_index(data, videos, _command(data), lambda text: click.echo(text, err=True)), json_file)


@cli.command("report")
@click.argument("folder", type=_file, default=Path("bench/results"))
@click.option("--brief", is_flag=True, help="Only clips per second, as in the README.")
def report_command(folder: Path, brief: bool) -> None:
    """Print the tables of the results (*.json) in FOLDER."""
    from bench.reporting.tables import load_folder, tables

    click.echo(tables(load_folder(folder), brief=brief), nl=False)


@cli.command("compare")
@click.argument("a", type=_file)
@click.argument("b", type=_file)
def compare_command(a: Path, b: Path) -> None:
    """Say whether B is faster, slower or no different than A, from the spreads of two results files."""
    from bench.reporting.comparison import as_text
    from bench.reporting.results import load

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


def _names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `a,b`, given for `option`. Raises UsageError for one that isn't known, or is there twice."""
    names = tuple(part.strip() for part in text.split(","))
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise UsageError(f"{option} {text}: expected one or more of {', '.join(known)}, each once")
    return names


def _check_files(json_file: Path | None, plot: Path | None) -> None:
    """Raise what writing them would raise, before minutes of measurement."""
    from bench.reporting.chart import figure_class

    for file in (json_file, plot):
        if file is not None and not file.resolve().parent.is_dir():
            raise UsageError(f"{file}: no such folder to write to; make it first")
    if plot is not None:
        figure_class(plot)


def _write(measured: Report, json_file: Path | None, plot: Path | None) -> None:
    from bench.reporting import chart, results

    if json_file is not None:
        results.save(measured, json_file)
    if plot is not None:
        chart.draw(measured, plot)


def _command(data: Path | None) -> str:
    """The command line as it may be published: of the data's path only the name."""
    words = ["bench"]
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if data is not None and value == str(data):
            word = f"{name}{equals}{data.resolve().name}"
        if data is not None and word == str(data):
            words.append(data.resolve().name)
        elif equals and "/" in value:
            words.append(f"{name}={Path(value).name}")
        else:
            words.append(Path(word).name)
    return shlex.join(words)


def _rest(measured: Report) -> str:
    """What is to be said below the tables."""
    lines = ["", *(f"left out: {clip['path']}: {clip['reason']}" for clip in measured.excluded)]
    if measured.excluded:
        lines.append(f"left out in all: {len(measured.excluded)} videos")
    for name, line in measured.missing.items():
        lines.append(f"not installed: {name}: {line}")
    for name, value in measured.extra.items():
        if isinstance(value, dict) and set(value) == {"median", "low", "high"}:
            lines.append(f"{name}: {value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})")
        elif isinstance(value, dict):
            lines += [f"{name}: {key}: {what}" for key, what in value.items()]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def _show(values: dict[str, object], json_file: Path | None) -> None:
    """Print figures that are no comparison, and write them."""
    import json

    from bench.reporting.results import OtherReport, building
    from bench.reporting.tables import tables

    click.echo(tables([OtherReport(str(values["kind"]), values)]), nl=False)
    if json_file is not None:
        with building(json_file) as unfinished:
            unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_cli(cli, sys.argv[1:], "bench"))


if __name__ == "__main__":
    main()

"""`r3d-fast data ...`: index, make-demo; and the demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipelines.errors import DataError
from r3d_fast.commands.options import write_json


@click.command()
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where it all goes."
)
def demo(folder: Path) -> None:
    """Make a small data set, train on it, evaluate, predict: minutes on a laptop, no GPU needed."""
    from r3d_fast.demo import run_demo

    run_demo(folder, click.echo)


@click.group()
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
    write_json(json_file, summary)
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

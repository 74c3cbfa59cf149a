"""`r3d-fast data ...`: index, download, make-demo; and the demo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.errors import DataError
from r3d_fast.commands.options import file_option
from r3d_fast.files import check_outputs, write_json

if TYPE_CHECKING:
    from r3d_fast.console import Progress


@click.command()
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where it all goes."
)
def demo(folder: Path) -> None:
    """Make a small data set, train on it, evaluate, predict: minutes on a laptop, no GPU needed."""
    from r3d_fast.demo.demo import run_demo

    run_demo(folder, click.echo)


@click.group()
def data() -> None:
    """Data sets: download, index, make."""


@data.command("index")
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--lists", type=click.Path(path_type=Path), help="Folder of UCF-101, HMDB-51 or Kinetics lists, or a CSV."
)
@click.option("--split", type=int, help="Which split of the lists (default 1).")
@click.option(
    "--val-fraction", type=float, default=0.2, show_default=True, help="Held out where nothing says what to test on."
)
@click.option("--index", "index", type=click.Path(path_type=Path), help="Where the index goes (default: beside ROOT).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one a usable CPU).")
@click.option("--follow-links", is_flag=True, help="Take symlinks that lead out of ROOT.")
@click.option("--allow-partial", is_flag=True, help="Take truncated videos for what is left of them.")
@file_option("json", "the summary")
def data_index(root: Path, json_file: Path | None, **options: Any) -> None:
    """Index the videos of ROOT: a folder a class, UCF-101, HMDB-51, Kinetics, or a CSV of path,label[,split]."""
    _index(root, json_file, partial(click.echo, err=check_outputs(json_file)), **options)


def _index(root: Path, json_file: Path | None, say: Callable[[str], None], **options: Any) -> None:
    """Index `root`, say what is in it, and write that as JSON. Raises DataError where nothing is usable."""
    from pipelines.index.video_index import SUFFIX, VideoIndex
    from r3d_fast.commands.tables import index_summary, print_index

    with _Bars() as bars:
        index = VideoIndex.build(root, progress=lambda done, total: bars.show("files", done, total), **options)
    for warning in index.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.get("index") is None and index.path.parent != root.resolve().parent:
        print(
            f"{root.resolve().parent} can't be written: the index ({root.name}{SUFFIX}) is in the current folder",
            file=sys.stderr,
        )
    summary = index_summary(index)
    print_index(summary, say)
    write_json(json_file, summary)
    if len(index) == 0:
        raise DataError(f"{root}: no usable video among {len(index.quarantined)} files; the table says why")


class _Bars:
    """One bar at a time, by its title."""

    def __init__(self) -> None:
        self._title = ""
        self._bar: Progress | None = None

    def show(self, title: str, done: int, total: int) -> None:
        """Say how much of what is done; where it is told again, nothing is said."""
        from r3d_fast.console import Progress

        if self._bar is None or title != self._title:
            self.__exit__()
            self._title, self._done = title, -1
            # What was there before took no time of this call.
            self._bar = Progress(title, total, max(0, done - 1), max(1, total // 10))
        if done != self._done:
            self._done = done
            self._bar.step(done=done)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@data.command("download")
@click.argument("name", type=click.Choice(["ucf101", "hmdb51"]))
@click.option("--root", required=True, type=click.Path(path_type=Path), help="Folder for the videos and the lists.")
@click.option("--mirror", default="", metavar="URL", help="Folder to download from instead of the official one.")
@click.option("--split", type=int, help="Which split of the lists to index (default 1).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that index (default: one a usable CPU).")
@click.option("--keep-archives", is_flag=True, help="Keep the archives after they are unpacked.")
@file_option("json", "the index's summary")
def data_download(
    name: str, root: Path, mirror: str, split: int | None, workers: int | None, keep_archives: bool,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Download UCF-101 (6.9 GB) or HMDB-51 (2.1 GB), unpack and index it. Run again, it goes on where it was."""
    from r3d_fast.download.download import DOWNLOADS, download

    def log(line: str) -> None:
        bars.__exit__()
        print(line, file=sys.stderr)

    say = partial(click.echo, err=check_outputs(json_file))
    with _Bars() as bars:
        done = download(name, root, mirror=mirror, keep_archives=keep_archives, say=log, show=bars.show)
    _index(done.videos, json_file, say, lists=done.lists, split=split, workers=workers)
    say(f"train:   r3d-fast train -c {DOWNLOADS[name].config} -o data.root={done.videos}")
    say(f"another split: r3d-fast data index {done.videos} --lists {done.lists} --split {2 if split != 2 else 1}")


@data.command("make-demo")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--videos-per-class", type=int, default=None, help="Training videos of each motion.")
@click.option("--test-per-class", type=int, default=None, help="Test videos of each motion.")
@click.option("--seed", type=int, default=0, show_default=True)
def data_make_demo(root: Path, **options: int | None) -> None:
    """Write the demo's videos, in which only the motion tells the class, to ROOT."""
    from r3d_fast.demo.videos import make_demo_dataset

    make_demo_dataset(root, **{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
    click.echo(root)

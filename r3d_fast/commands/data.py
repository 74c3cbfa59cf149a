"""The commands `r3d-fast data index`, `data download` and `data make-demo`, and `r3d-fast demo`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.errors import DataError
from r3d_fast.commands.options import file_option
from r3d_fast.files import check_outputs, write_json

if TYPE_CHECKING:
    from r3d_fast.console import Progress


@click.command()
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(path_type=Path),
    help="Folder for everything that the demo makes.",
)  # fmt: skip
def demo(folder: Path) -> None:
    """Try all steps on a small generated data set.

    Makes the videos, indexes them, trains a model, evaluates it and predicts. On 2 CPU cores this takes about half a
    minute. No GPU is needed.
    """
    from r3d_fast.demo.demo import run_demo

    run_demo(folder, click.echo)


@click.group()
def data() -> None:
    """Download, index or generate a data set."""


@data.command("index")
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--lists", type=click.Path(path_type=Path),
    help="Folder with the official lists of UCF-101, HMDB-51, Kinetics or Something-Something; or a CSV with the "
    "columns path,label[,split]; or a text file with a path and a label on each line, as mmaction2, PaddleVideo and "
    "PySlowFast have; or a folder with such a file for each split (train.csv, val.csv).",
)  # fmt: skip
@click.option("--split", type=int, help="Which of the official splits to use (default: 1).")
@click.option(
    "--val-fraction", type=float, default=0.2, show_default=True,
    help="Share of the videos to hold out as test videos, if neither lists nor folders name a split.",
)  # fmt: skip
@click.option(
    "--index", "index", type=click.Path(path_type=Path), help="Index file to write (default: beside the folder ROOT)."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read videos (default: one per usable CPU).")
@click.option("--follow-links", is_flag=True, help="Also index videos behind symlinks that lead out of ROOT.")
@click.option("--allow-partial", is_flag=True, help="Also index truncated and damaged videos, up to where they decode.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=MAX_PIXELS, show_default=True,
    help="Leave out videos whose frames have more pixels than this; the default takes all of 8K.",
)  # fmt: skip
@file_option("json", "the summary")
def data_index(root: Path, json_file: Path | None, **options: Any) -> None:
    """Index the videos in the folder ROOT.

    Training and evaluation read the index. The classes and splits come from folders (ROOT/CLASS/VIDEO, or
    ROOT/train/CLASS/VIDEO), or from --lists.
    """
    is_stdout_taken = check_outputs(json_file, inputs=_inputs(root, options["index"], options["lists"]))
    _index(root, json_file, partial(click.echo, err=is_stdout_taken), **options)


def _inputs(root: Path, index: Path | None, lists: Path | None) -> list[Path]:
    """The files that are used beside the videos: the index, and the lists."""
    from pipelines.datasets.lists.split_files import SUFFIXES
    from pipelines.index.video_index import default_path

    if index is None and root.is_dir():
        index = default_path(root)
    folder = lists if lists is not None and lists.is_dir() else None
    listed = [] if folder is None else [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return [*(path for path in (index, lists) if path is not None), *listed]


def _index(root: Path, json_file: Path | None, say: Callable[[str], None], **options: Any) -> None:
    """Index `root`, print what is in the index, and write the same as JSON. Raises DataError if no video is usable."""
    from pipelines.index.video_index import SUFFIX, VideoIndex
    from r3d_fast.commands.tables import index_summary, picture_warning, print_index

    with _Bars() as bars:
        index = VideoIndex.build(
            root, progress=lambda done, total: bars.show("files", done, total), watch=bars.show_file, **options
        )
    if options.get("index") is None and index.path.parent != root.resolve().parent:
        print(
            f"{root.resolve().parent}: can't be written; so the index ({root.name}{SUFFIX}) is in the current folder",
            file=sys.stderr,
        )
    summary = index_summary(index)
    for warning in (*index.warnings, picture_warning(summary)):
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    print_index(summary, say)
    write_json(json_file, summary)
    if len(index) == 0:
        raise DataError(f"{root}: no usable video among {len(index.quarantined)} files; see the reasons printed above")


_SECONDS_BETWEEN_LINES = 10.0  # about the state of one long file, where there is no terminal
_DECODING = "decoding"


class _Bars:
    """Shows one progress bar at a time; a new title starts a new bar."""

    def __init__(self) -> None:
        self._title = ""
        self._told = 0.0  # when the state of a file was told last
        self._bar: Progress | None = None

    def show(self, title: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of the task `title` are finished; ignores a repeated call."""
        from r3d_fast.console import Progress

        if self._bar is None or title != self._title:
            self.__exit__()
            self._title, self._done = title, -1
            # What an earlier call did took no time of this one, so it does not count for the estimate of the rest.
            self._bar = Progress(title, total, max(0, done - 1), max(1, total // 10))
        if done != self._done:
            self._done = done
            self._bar.step(done=done)

    def show_file(self, path: str, share: float) -> None:
        """Show that `share` (0 to 1) of a long file is decoded: by a bar, or beside the one that counts files."""
        if self._bar is None or self._title.startswith(_DECODING):
            self.show(f"{_DECODING} {path}", int(100 * share), 100)
        elif self._bar.is_drawn or monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = monotonic()
            self._bar.note(f"{_DECODING} {path}: {share:.0%}")

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@data.command("download")
@click.argument("name", type=click.Choice(["ucf101", "hmdb51"]))
@click.option("--root", required=True, type=click.Path(path_type=Path), help="Folder for the videos and the lists.")
@click.option(
    "--mirror", default="", metavar="URL", help="Folder on the web to download from, instead of the official one."
)
@click.option("--split", type=int, help="Which of the official splits to index (default: 1).")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that index the videos (default: one per usable CPU)."
)
@click.option("--keep-archives", is_flag=True, help="Keep the archives after they are unpacked.")
@file_option("json", "the summary of the index")
def data_download(
    name: str, root: Path, mirror: str, split: int | None, workers: int | None, keep_archives: bool,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Download UCF-101 (6.9 GB) or HMDB-51 (2.1 GB).

    The videos are unpacked and indexed. If the command was interrupted, run it again: it continues where it stopped.
    """
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
@click.option("--videos-per-class", type=click.IntRange(min=1), help="Training videos per class (default: 24).")
@click.option("--test-per-class", type=click.IntRange(min=1), help="Test videos per class (default: 6).")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random textures and speeds."
)
def data_make_demo(root: Path, **options: int | None) -> None:
    """Generate the demo's videos in the folder ROOT.

    There are eight classes, each a motion of random textures, such as left or zoom_in. A single frame does not tell the
    class.
    """
    from r3d_fast.demo.videos import make_demo_dataset

    make_demo_dataset(root, **{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
    click.echo(root)

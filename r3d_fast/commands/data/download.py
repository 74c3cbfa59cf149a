"""The command `r3d-fast data download`."""

from __future__ import annotations

from pathlib import Path

import click

from r3d_fast.commands.data.bars import Bars
from r3d_fast.commands.data.index import index_folder
from r3d_fast.commands.options import file_option
from r3d_fast.console import lines_beside, quoted, tell


@click.command("download")
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
def download(
    name: str, root: Path, mirror: str, split: int | None, workers: int | None, keep_archives: bool,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Download UCF-101 (6.9 GB) or HMDB-51 (2.1 GB).

    The videos are unpacked and indexed. If the command was interrupted, run it again: it continues where it stopped.
    """
    from r3d_fast.download.download import DOWNLOADS
    from r3d_fast.download.download import download as fetch

    def log(line: str) -> None:
        bars.__exit__()
        tell(line)

    say = lines_beside(json_file)
    with Bars() as bars:
        done = fetch(name, root, mirror=mirror, keep_archives=keep_archives, say=log, show=bars.show)
    index_folder(done.videos, json_file, say, lists=done.lists, split=split, workers=workers)
    say(f"train:   r3d-fast train -c {DOWNLOADS[name].config} -o {quoted(f'data.root={done.videos}')}")
    other = quoted("r3d-fast", "data", "index", done.videos, "--lists", done.lists, "--split", 2 if split != 2 else 1)
    say(f"another split: {other}")

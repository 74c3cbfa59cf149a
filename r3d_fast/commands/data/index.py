"""The command `r3d-fast data index`, and the indexing of a folder that other commands do as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.containers.file_checks import MAX_PIXELS, MOST_CORRUPT
from pipelines.errors import DataError
from pipelines.output.files import write_json
from r3d_fast.commands.data.bars import Bars
from r3d_fast.commands.options import file_option
from r3d_fast.console import lines_beside, tell

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex


@click.command("index")
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
    "--group", metavar="REGEX|COLUMN",
    help="Which videos are cuts of one recording, so that they stay in one split: a regular expression for the part of "
    "the path that they share, such as '(rec[0-9]+)_'; or the name of a column of --lists FILE.csv.",
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
@click.option(
    "--max-corrupt-fraction", type=click.FloatRange(0, 1), default=MOST_CORRUPT, show_default=True,
    help="Leave out videos of whose frames more than this share is damaged, where that shows.",
)  # fmt: skip
@click.option("--retry", is_flag=True, help="Look again at all files that were left out before.")
@click.option("--anew", is_flag=True, help="Look at all files again, as if there were no index yet.")
@click.option(
    "--full", is_flag=True,
    help="Look at all files again and decode each from start to end, also where its headers tell all; this finds files "
    "whose bytes have changed though size and time have not.",
)  # fmt: skip
@file_option("json", "the summary")
def index(root: Path, json_file: Path | None, **options: Any) -> None:
    """Index the videos in the folder ROOT.

    Training and evaluation read the index. The classes and splits come from folders (ROOT/CLASS/VIDEO, or
    ROOT/train/CLASS/VIDEO), or from --lists.
    """
    say = lines_beside(json_file, inputs=_inputs(root, options["index"], options["lists"]))
    index_folder(root, json_file, say, **options)


def _inputs(root: Path, index: Path | None, lists: Path | None) -> list[Path]:
    """The files that are used beside the videos: the index, and the lists."""
    from pipelines.datasets.lists.split_files import SUFFIXES
    from pipelines.index.locations import default_path

    if index is None and root.is_dir():
        index = default_path(root)
    folder = lists if lists is not None and lists.is_dir() else None
    listed = [] if folder is None else [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return [*(path for path in (index, lists) if path is not None), *listed]


def index_folder(root: Path, json_file: Path | None, say: Callable[[str], None], **options: Any) -> VideoIndex:
    """The index of the folder `root`, made with the `options` of `VideoIndex.build`.

    What is in it is passed to `say` line by line, and written to `json_file` as JSON. Raises DataError if no video is
    usable.
    """
    from pipelines.index.locations import SUFFIX
    from pipelines.index.video_index import VideoIndex
    from r3d_fast.commands.data.index_table import copies_warning, index_summary, picture_warning, print_index

    with Bars() as bars:
        index = VideoIndex.build(
            root, progress=lambda done, total: bars.show("files", done, total), watch=bars.show_file, **options
        )
    if options.get("index") is None and index.path.parent != root.resolve().parent:
        tell(f"{root.resolve().parent}: can't be written; so the index ({root.name}{SUFFIX}) is in the current folder")
    summary = index_summary(index)
    for warning in (*index.warnings, picture_warning(summary), copies_warning(index)):
        if warning:
            tell(f"warning: {warning}")
    print_index(summary, say)
    write_json(json_file, summary)
    if len(index) == 0:
        raise DataError(f"{root}: no usable video among {len(index.quarantined)} files; see the reasons printed above")
    return index

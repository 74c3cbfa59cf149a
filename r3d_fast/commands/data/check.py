"""The command `r3d-fast data check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.containers.file_checks import MOST_CORRUPT
from pipelines.errors import ExitCode
from pipelines.output.files import check_writable, write_json
from r3d_fast.commands.data.bars import Bars
from r3d_fast.commands.options import file_option, index_argument, index_at
from r3d_fast.console import counted, lines_beside, tell

if TYPE_CHECKING:
    from pipelines.checks.check import Check
    from pipelines.index.video_index import VideoIndex


@click.command()
@index_argument
@click.option("--full", is_flag=True, help="Also decode every video from start to end.")
@file_option("json", "what was found")
@click.option(
    "--quarantine", "enters", is_flag=True,
    help="Decode every video, and enter those that can't be decoded or are too damaged into INDEX.quarantine: no clip "
    "is read of them from then on.",
)  # fmt: skip
@click.option("--clear-quarantine", "clears", is_flag=True, help="First let all videos out of the quarantine.")
@click.option(
    "--fix-list", "fix_list", type=click.Path(path_type=Path), metavar="DIR",
    help="Write lists of the videos that are of use to the new folder DIR, for `r3d-fast data index --lists DIR`: "
    "without what is broken, copied or leaks into another split.",
)  # fmt: skip
@click.option(
    "--max-corrupt-fraction", "most_corrupt", type=click.FloatRange(0, 1), default=MOST_CORRUPT, show_default=True,
    help="A video of whose frames more than this share is damaged is too damaged.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode (default: one per usable CPU).")
def check(
    index: Path,
    full: bool,
    json_file: Path | None,
    enters: bool,
    clears: bool,
    fix_list: Path | None,
    most_corrupt: float,
    workers: int | None,
) -> int:
    """Look for what is wrong with the data set INDEX, an index file or a folder that is indexed.

    Says which files are ignored or can't be read, which are copies of one another, how even the classes are, and how
    long, large and fast the videos. Ends with exit code 3 if there is a problem, and 0 if there are only warnings.
    """
    from pipelines.checks.findings import findings_of
    from pipelines.checks.index_check import check_index
    from r3d_fast.commands.data.check_table import check_json, print_check

    say = lines_beside(json_file, inputs=[index], others=enters or fix_list is not None)
    opened = index_at(index)
    _check_places(opened, fix_list, enters=enters)
    if clears:
        opened = _cleared(opened)
    with Bars() as bars:
        found = check_index(opened, full=full or enters, show=bars.show, workers=workers)
    write_json(json_file, check_json(found))
    print_check(found, say)
    if enters:
        _quarantine(opened, found, most_corrupt, say)
    if fix_list is not None:
        _write_lists(opened, found, most_corrupt, fix_list, say)
    has_problem = any(finding.level == "problem" for finding in findings_of(found))
    return ExitCode.DATA if has_problem else ExitCode.OK


def _check_places(index: VideoIndex, fix_list: Path | None, *, enters: bool) -> None:
    """Raise UsageError where what is asked for can't be written, before the work begins."""
    from pipelines.checks.clean_lists import check_free
    from pipelines.index.known_bad import KnownBad

    if enters:
        check_writable(KnownBad(index.path).path)
    if fix_list is not None:
        check_free(fix_list)
        if not fix_list.exists():
            check_writable(fix_list)


def _cleared(index: VideoIndex) -> VideoIndex:
    """The index, opened anew after its quarantine was deleted."""
    from pipelines.index.known_bad import KnownBad
    from pipelines.index.video_index import VideoIndex

    known = KnownBad(index.path)
    count = known.clear()
    tell(f"{known.path}: {count} entr{'y' if count == 1 else 'ies'} deleted" if count else f"{known.path}: was empty")
    return VideoIndex.open(index.path, index.root)


def _quarantine(index: VideoIndex, found: Check, most_corrupt: float, say: Callable[[str], None]) -> None:
    from pipelines.checks.quarantine import quarantine
    from pipelines.index.known_bad import KnownBad

    entries = quarantine(index, found, most_corrupt)
    say(f"{len(entries)} in quarantine now: {KnownBad(index.path).path}" if entries else "nothing for the quarantine")


def _write_lists(
    index: VideoIndex, found: Check, most_corrupt: float, folder: Path, say: Callable[[str], None]
) -> None:
    from pipelines.checks.clean_lists import clean_lists

    lists = clean_lists(index, found, most_corrupt)
    lists.write(folder)
    say(f"lists    {folder}: {', '.join(sorted(lists.files))}; {counted(len(lists.left_out), 'video')} left out")
    for name, reason in list(lists.left_out.items())[:10]:
        say(f"    {name}: {reason}")
    if len(lists.left_out) > 10:
        say(f"    and {len(lists.left_out) - 10} more")

"""The videos that `r3d-fast train DATA` names: a folder, which is indexed where that is needed, or an index file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.errors import DataError, UsageError
from r3d_fast.commands.data.index import index_folder
from r3d_fast.console import quoted, tell
from r3d_fast.errors import ConfigError

_KEYS = ("root", "index")


def data_overrides(
    data: Path, overrides: Sequence[str], say: Callable[[str], None], *, keeps_index: bool = False
) -> list[str]:
    """The overrides that make a config use the videos of `data`, a folder or an index file.

    A folder is indexed if it has no index, or if its files have changed since; `say` gets the lines that `r3d-fast data
    index` prints. With `keeps_index`, for a run that goes on with the videos that it began with, an index stays as it
    is. Raises DataError where there are no videos, UsageError where `data` is neither, or `overrides` name
    the videos too.
    """
    from r3d_fast.config.yaml_files import parse_override, shipped_configs

    for override in overrides:
        try:
            given = parse_override(override).data.get("data")
        except ConfigError:  # `load_config` says why
            continue
        if isinstance(given, dict) and given.keys() & set(_KEYS):
            raise UsageError(f"{data} and -o {override} both name the videos; give only one of them")
    if data.is_dir():
        _index_if_needed(data, say, keeps_index)
        return [f"data.root={json.dumps(str(data))}", "data.index=null"]
    if data.is_file():
        _require_index(data)
        return ["data.root=null", f"data.index={json.dumps(str(data))}"]
    if str(data) in shipped_configs():
        raise UsageError(f"{data} is a config, not a folder of videos; expected -c {data}")
    raise DataError(f"{data}: no such folder; expected a folder of videos, or its index")


def _index_if_needed(folder: Path, say: Callable[[str], None], keeps_index: bool) -> None:
    from pipelines.index.changes import find_changes
    from pipelines.index.locations import find_index
    from pipelines.index.video_index import VideoIndex

    found = find_index(folder)
    if found is None:
        say(f"indexing {folder}, once")
        index_folder(folder, None, say)
        return
    index = VideoIndex.open(found, folder)
    changes = str(find_changes(index))
    if changes and keeps_index:
        tell(f"files of {folder} have changed since it was indexed ({changes}); the run goes on with those it knows")
    elif changes:
        say(f"files of {folder} have changed since it was indexed ({changes}): indexing it again, in the same way")
        options = index.options
        del index  # or the file that is replaced would be kept for it
        index_folder(folder, None, say, index=found, **options)


def _require_index(file: Path) -> None:
    """Raise UsageError, with what to do, where `file` is not an index; IndexFileError where it is damaged."""
    from pipelines.datasets.lists.split_files import SUFFIXES
    from pipelines.datasets.video_files import is_video_name

    with file.open("rb") as opened:
        if opened.read(15) == b"SQLite format 3":
            return
    if is_video_name(file.name):
        raise UsageError(f"{file}: is a single video; expected a folder that has a folder of videos for each class")
    if file.suffix.lower() in (".yaml", ".yml"):
        raise UsageError(f"{file}: is a config, not a folder of videos; expected {quoted('-c', file)}")
    if file.suffix.lower() in SUFFIXES:
        raise UsageError(
            f"{file}: is a list of videos; index them first: {quoted('r3d-fast', 'data', 'index', 'ROOT')} "
            f"{quoted('--lists', file)}"
        )
    raise UsageError(f"{file}: is not an index; expected a folder of videos, or a file that `data index` wrote")

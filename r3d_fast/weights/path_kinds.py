"""What a path holds, in words, for who names the wrong one or mixes up the order of arguments."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from pipelines.datasets.video_files import is_video_name
from pipelines.input.regular_files import what_lies_at

_SQLITE = b"SQLite format 3\0"
_LOOKED_AT = 200  # entries of a folder, and of each folder in it


def other_kind(path: Path) -> str | None:
    """What is at `path` that is no model, as "a video"; None where nothing is there, or it may be a model.

    It is recognised by its name, or by its first bytes.
    """
    try:
        if path.is_file():
            return _kind_of_file(path)
        if path.is_dir() and _has_videos(path):
            return "a folder of videos"
        lies = what_lies_at(path)
        if lies not in ("a file", "a folder", "nothing"):
            return lies
    except OSError:  # whoever opens it says why
        pass
    return None


def _kind_of_file(path: Path) -> str | None:
    if is_video_name(path.name):
        return "a video"
    if path.suffix.lower() in (".yaml", ".yml"):
        return "a config"
    if path.suffix.lower() in (".csv", ".txt", ".json", ".jsonl", ".html"):
        return "a text"
    with path.open("rb") as file:
        return "an index of videos" if file.read(len(_SQLITE)) == _SQLITE else None


def _has_videos(folder: Path) -> bool:
    """Whether there are videos in `folder`, or in the folders in it, as far as its first entries tell."""
    for entry in islice(folder.iterdir(), _LOOKED_AT):
        if is_video_name(entry.name):
            return True
        if entry.is_dir() and any(is_video_name(inner.name) for inner in islice(entry.iterdir(), _LOOKED_AT)):
            return True
    return False

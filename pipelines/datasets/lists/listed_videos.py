"""What all forms of lists are read into: videos with labels and splits; and what their lines have in common."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.datasets.text_files import escaped
from pipelines.datasets.video_files import EXTENSIONS_SHOWN, is_video_name
from pipelines.errors import ListError


class ListedVideo(NamedTuple):
    """One line of a list.

    `path` is that of the video, relative to the root; `label` is 0-based; `split` is "" if the list has none; `where`
    is file:line for messages.
    """

    path: str
    label: int
    split: str
    where: str


@dataclass(frozen=True)
class Lists:
    """The content of the list files of a data set.

    `rows` are in the order of the lists. `unused` are the paths that the lists name as belonging to no split. `split`
    is the number of the split that was read, None for lists that have no numbered splits.
    """

    kind: str
    classes: tuple[str, ...]
    rows: tuple[ListedVideo, ...]
    unused: frozenset[str]
    split: int | None = None


def relative_path(path: str, where: str, roots: Sequence[str]) -> str:
    """The listed path, normalised and relative to the root.

    Raises ListError if it is not the name of a video, or outside the root.
    """
    if not is_video_name(path):
        raise ListError(f"{where}: {path!r} is no video file name; expected one of {EXTENSIONS_SHOWN}")
    normal = posixpath.normpath(path)
    for root in roots:
        normal = normal.removeprefix(root.rstrip("/") + "/")
    if normal.startswith(("/", "../")):
        raise ListError(f"{where}: {escaped(path)} is outside the root; expected a path relative to it")
    return normal


def last_word(line: str) -> tuple[str, str]:
    """(path, last word) of a line; the path may contain spaces."""
    path, *last = line.rsplit(None, 1)
    return path, last[0] if last else ""

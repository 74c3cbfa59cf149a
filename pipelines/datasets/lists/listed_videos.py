"""What all forms of lists are read into: videos with labels and splits; and what their lines have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

INTEGER = re.compile(r"-?[0-9]{1,9}")


class ListLine(NamedTuple):
    """One line of a list as it is written: the path, the label (a number or a name), the split ("" if it has none).

    `where` is file:line for messages; `group` is the recording that it is cut from, "" if the list does not say.
    """

    path: str
    label: str
    split: str
    where: str
    group: str = ""


class ListedVideo(NamedTuple):
    """A video of a list, with its class.

    `path` is relative to the root, or as it is written in lists that are `made_elsewhere`; `label` is 0-based; `split`
    is "" if the list has none; `where` is file:line for messages; `group` as of ListLine.
    """

    path: str
    label: int
    split: str
    where: str
    group: str = ""


@dataclass(frozen=True)
class Lists:
    """The content of the list files of a data set.

    `rows` are in the order of the lists. `unused` are the paths that the lists name as belonging to no split. `split`
    is the number of the split that was read, None for lists that have no numbered splits. Lists that are
    `made_elsewhere` may have the paths of another machine, or names without an extension.
    """

    kind: str
    classes: tuple[str, ...]
    rows: tuple[ListedVideo, ...]
    unused: frozenset[str]
    split: int | None = None
    warnings: tuple[str, ...] = ()
    made_elsewhere: bool = False


class ListedClip(NamedTuple):
    """A part of a video on YouTube, with its class, as Kinetics and ActivityNet list them.

    `label` is 0-based. `cut` is the name, without a suffix, of a file that holds the clip alone, "" if there is no such
    name; `uncut` are those that the whole video may have. `begin` and `end` are in seconds; `where` is its place in
    the lists for messages.
    """

    label: int
    cut: str
    uncut: tuple[str, ...]
    begin: float
    end: float
    split: str
    where: str

    @property
    def name(self) -> str:
        """What the clip is called in messages, without the suffix of a file: ID_000010_000020, or v_ID#t=1.5,3."""
        return self.cut or f"{self.uncut[0]}#t={self.begin:g},{self.end:g}"


@dataclass(frozen=True)
class ClipLists:
    """The content of lists of parts of videos.

    `kind` is that of the data set, `files` are the names of the lists for messages. `classes` are all classes in the
    lists, so that labels do not depend on which videos are there.
    """

    kind: str
    files: str
    classes: tuple[str, ...]
    clips: tuple[ListedClip, ...]
    warnings: tuple[str, ...]


def last_word(line: str) -> tuple[str, str]:
    """(path, last word) of a line; the path may contain spaces."""
    path, *last = line.rsplit(None, 1)
    return path, last[0] if last else ""

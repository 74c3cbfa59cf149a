"""The parts of a recognised data set: its videos, those that are missing, and files that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.video.record import Span


@dataclass(frozen=True)
class Entry:
    """One labelled video of a data set.

    `path` is relative to the root and has "/" between folders, `label` is 0-based, `split` is train, val or test. With
    a `span` (begin, end) in seconds, the video is only that part of the file. `uncut`: whether the file holds the whole
    for certain, so that even one that is hardly longer than the span is not taken for one that was cut to it already.
    `group` names the recording that it is cut from, whose cuts belong into one split; "" where it is alone.
    """

    path: str
    label: int
    split: str
    span: Span | None = None
    uncut: bool = False
    group: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that was found but not used: its path, relative to the root and printable, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Missing:
    """A video that the lists name but that is not there: the name by which it was looked for, and its split."""

    name: str
    split: str


@dataclass(frozen=True)
class Dataset:
    """A recognised data set.

    `kind` is folders, ucf101, hmdb51, csv, text list, something-something-v2, annotations, activitynet, or kinetics
    with the number of its classes. `classes` are the names of the classes by label; `entries` are sorted by path and
    span. `lists` is the path of the list files, empty if there are none. `lists_split` is the number of the split that
    was taken from the lists, None if they have no numbered splits. `rule` says how the videos came into their splits.
    `ignored` counts the files that are not called like videos, by suffix. `options` are those by which the data set can
    be indexed again in the same way, as JSON values.
    """

    kind: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    missing: tuple[Missing, ...] = ()
    lists: str = ""
    lists_split: int | None = None
    rule: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

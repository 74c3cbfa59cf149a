"""What a recognised data set is made of: its entries, what is missing, what was left out."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.video.record import Span


@dataclass(frozen=True)
class Entry:
    """One labelled video of a data set: path relative to the root with "/", 0-based label, split train, val or test.

    With a `span` the video is only that part of the file.
    """

    path: str
    label: int
    split: str
    span: Span | None = None


@dataclass(frozen=True)
class LeftOut:
    """Something that was found and not taken: its path (printable, relative to the root) and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Missing:
    """A video that the lists name and that is not there: the name it was looked for by, and its split."""

    name: str
    split: str


@dataclass(frozen=True)
class Dataset:
    """A recognised data set: its kind, class names by label, entries sorted by path and span.

    `kind` is folders, ucf101, hmdb51, csv or kinetics with the number of its classes. `lists` is where its lists lie
    (empty without), `lists_split` the number of the split of them that was taken, None where they have none.
    """

    kind: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    missing: tuple[Missing, ...] = ()
    lists: str = ""
    lists_split: int | None = None

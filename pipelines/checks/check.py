"""Check: what is known about the data set of an index, as values. `findings_of` says in words what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassVideos:
    """A class, and how many videos of it each split has; splits without one are left out."""

    name: str
    videos: Mapping[str, int]

    @property
    def total(self) -> int:
        """How many videos of the class all splits have."""
        return sum(self.videos.values())


@dataclass(frozen=True)
class Trouble:
    """A file or video with which something is wrong: its name, a short reason, and details ("" for none)."""

    name: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Copies:
    """Files that have the same bytes: their paths, and of each its split and the name of its class."""

    paths: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PartedGroup:
    """A group, the cuts of one recording, with videos in several splits; one video of each is named."""

    group: str
    videos: Mapping[str, str]


@dataclass(frozen=True)
class Spread:
    """The lowest, the median and the highest of many values, and the names of the videos that have the two ends."""

    low: float
    median: float
    high: float
    lowest: str
    highest: str


@dataclass(frozen=True)
class Check:
    """What is known about the data set of an index.

    `index` and `root` are paths. `splits` has the number of videos of each split, and `rule` says how the videos came
    into them. `classes` are in the order of their labels. `lengths` are in seconds, `rates` in frames a second; both
    are None where there is no video. `sizes` ("320x240") and `codecs` have numbers of videos, the most frequent first.
    `notes` has the names of the videos with each note of `pipelines.containers.notes`.

    `ignored` counts the files that are not called like videos, by suffix. `left_out` are the files that the index
    leaves out, `unindexed` those that came since, and `missing` the names that its lists have and the folder lacks.
    `unreadable` are the videos of the index that can't be read now, `corrupt` those with frames that the decoder marks
    as damaged, with their number, `frames` the number of all frames of these. `quarantined` are the videos that must
    not be decoded, and why; see pipelines.index.known_bad. Only a full check decodes: then `decoded` is the number of
    files that were, and `proven` are those whose bytes prove that they can't be read; else it is None.
    """

    index: str
    root: str
    splits: Mapping[str, int]
    rule: str
    classes: tuple[ClassVideos, ...]
    lengths: Spread | None
    rates: Spread | None
    sizes: Mapping[str, int]
    codecs: Mapping[str, int]
    notes: Mapping[str, tuple[str, ...]]
    ignored: Mapping[str, int]
    left_out: tuple[Trouble, ...]
    missing: tuple[str, ...]
    unreadable: tuple[Trouble, ...]
    corrupt: Mapping[str, int]
    copies: tuple[Copies, ...]
    parted_groups: tuple[PartedGroup, ...]
    unindexed: tuple[str, ...] = ()
    decoded: int | None = None
    frames: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    proven: tuple[Trouble, ...] = ()

    def damaged(self, most: float) -> dict[str, str]:
        """The videos of whose frames more than the share `most` are damaged, and how many are: "75 of 131 frames"."""
        counts = ((name, count, self.frames[name]) for name, count in self.corrupt.items())
        return {name: f"{count} of {frames} frames" for name, count, frames in counts if count > most * frames}

    @property
    def videos(self) -> int:
        """How many videos the index has."""
        return sum(self.splits.values())

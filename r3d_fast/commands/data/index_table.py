"""The content of an index, as a table for the terminal and as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.containers.file_checks import TRUNCATED
from pipelines.containers.formats.verdict import INDEX_CUT, INDEX_MISSING
from pipelines.containers.notes import (
    CONCEALED_ERRORS,
    DAMAGED,
    DAMAGED_PACKETS,
    ENDS_EARLY,
    FEWER_FRAMES,
    FROM_START,
    HDR,
    HIDDEN_FRAMES,
    INTERLACED,
    NOT_SQUARE,
    PICTURE,
    ROTATED,
    SEVERAL_STREAMS,
    UNEVEN_TIMES,
)
from pipelines.datasets.split_names import SPLITS
from pipelines.plain_text import plain
from r3d_fast.console import counted, quoted

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex

_SHOWN = 10  # files named under each reason, and of those that are missing
_CLASSES = 20  # whose videos are counted by split
_FEW = 3  # odd videos that are named
# What `data index` says of the videos with a note.
_NOTED = {
    ROTATED: "{is} turned upright, as {its} metadata asks",
    HDR: "{is} HDR; {its} colours are not tone-mapped",
    NOT_SQUARE: "{has} pixels that are not square; {its} frames are not stretched",
    INTERLACED: "{is} interlaced; {its} frames are not deinterlaced",
    UNEVEN_TIMES: "{has} uneven frame times; {its} frames are counted by number",
    SEVERAL_STREAMS: "{has} several video streams; the first one is taken",
    FEWER_FRAMES: "{has} at least a tenth fewer frames than {its} header states",
    HIDDEN_FRAMES: "{has} frames that an edit list hides; these are left out",
    TRUNCATED: "{is} truncated; the frames that are left are taken",
    DAMAGED: "{is} damaged; the frames before the damage are taken",
    DAMAGED_PACKETS: "{has} damaged packets; {its} frames are what the decoder makes of these",
    CONCEALED_ERRORS: "{has} errors that the decoder conceals",
    ENDS_EARLY: "{has} fewer seconds than the lists say",
    FROM_START: "{is} decoded from the start for each clip, which is slow",
    INDEX_MISSING: "{has} no index in {its} container; all frames are there",
    INDEX_CUT: "{has} only a part of the index in {its} container; all frames are there",
}
_ONE, _MANY = {"is": "is", "has": "has", "its": "its"}, {"is": "are", "has": "have", "its": "their"}


def index_summary(index: VideoIndex) -> dict[str, Any]:
    """The content of the index, as JSON values."""
    frames = index.columns().num_frames
    left_out: dict[str, list[str]] = {}
    for item in index.quarantined:
        left_out.setdefault(item.reason, []).append(item.path)
    missing: dict[str, list[str]] = {}
    for lost in index.missing:
        missing.setdefault(lost.split, []).append(lost.name)
    noted = index.noted()
    labels = Counter(index.columns().label.tolist())
    by_split = {split: Counter(index.columns(split).label.tolist()) for split in index.splits}
    return {
        "index": str(index.path),
        "root": str(index.root),
        "kind": index.kind,
        "videos": len(index),
        "classes": {name: labels[number] for number, name in enumerate(index.classes)},
        "splits": dict(index.counts("split")),
        "classes_by_split": {
            name: {split: counted[number] for split, counted in by_split.items()}
            for number, name in enumerate(index.classes)
        },
        "rule": index.rule,
        "groups": len(set(index.groups()) - {""}),
        "ignored": index.ignored,
        "frames": int(frames.sum()),
        "frames_a_video": [int(frames.min()), float(np.median(frames)), int(frames.max())] if len(index) else [],
        "sizes": dict(index.counts("size")),
        "codecs": dict(index.counts("codec")),
        "notes": {note: len(names) for note, names in noted.items()},
        "noted": noted,
        "left_out": left_out,
        "left_out_details": {item.path: item.detail for item in index.quarantined if item.detail},
        "lists": index.lists,
        "lists_split": index.lists_split,
        "missing": missing,
    }


def print_index(summary: dict[str, Any], say: Callable[[str], None]) -> None:
    """Pass the lines of a table of `summary`, which `index_summary` gave, to `say`."""

    def listed(counts: dict[str, int]) -> str:
        first = [f"{name} ({count})" for name, count in list(counts.items())[:6]]
        return ", ".join(first) + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")

    splits = ", ".join(f"{count} {split or 'without a split'}" for split, count in summary["splits"].items())
    say(f"videos   {summary['videos']} ({splits})" if splits else "videos   0")
    used = {name: count for name, count in summary["classes"].items() if count}
    say(f"classes  {len(summary['classes'])}: {listed(used)}")
    _print_held_out(summary, say)
    if summary["frames_a_video"]:
        low, middle, high = summary["frames_a_video"]
        say(f"frames   {summary['frames']} ({low} to {high} a video, median {middle:g})")
        say(f"sizes    {listed(summary['sizes'])}")
        say(f"codecs   {listed(summary['codecs'])}")
    noted = {note: names for note, names in summary["noted"].items() if note != PICTURE}  # which is a warning
    _print_noted(noted, summary["videos"], say)
    _print_left_out(summary["left_out"], summary["left_out_details"], say)
    if summary["ignored"]:
        say(f"ignored  {sum(summary['ignored'].values())} not called like a video: {listed(summary['ignored'])}")
    _print_missing(summary["missing"], summary["videos"], say)
    if summary["lists_split"] is not None:
        say(f"lists    split {summary['lists_split']} of {summary['kind']}")
    say(f"index    {summary['index']}")


def _print_held_out(summary: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say by which rule videos were held out, and how many of each class; nothing where the user named the splits."""
    if summary["rule"]:
        say(f"held out {summary['rule']}")
        for line in class_lines(summary["classes_by_split"], _CLASSES):
            say(f"  {line}")


def class_lines(classes: Mapping[str, Mapping[str, int]], most: int | None = None) -> list[str]:
    """A table of `classes`: how many videos of each class every split has; of more than `most` classes the first."""
    splits = sorted({split for counts in classes.values() for split in counts}, key=SPLITS.index)
    used = {plain(name): counts for name, counts in classes.items() if any(counts.values())}
    shown = list(used.items())[:most]
    width = max((len(name) for name, _ in shown), default=0)
    lines = [" ".join((f"{'class':{max(5, width)}}", *(f"{split:>7}" for split in splits)))]
    for name, counts in shown:
        lines.append(" ".join((f"{name:{max(5, width)}}", *(f"{counts.get(split, 0):7}" for split in splits))))
    if len(used) > len(shown):
        lines.append(f"and {len(used) - len(shown)} more (--json FILE lists all)")
    return lines


def copies_warning(index: VideoIndex) -> str:
    """The warning of files that have the size and the checksum of others; empty if there are none."""
    from pipelines.checks.copies import likely_copies

    copies = likely_copies(index.file_states())
    more = sum(len(paths) - 1 for paths in copies)
    if not more:
        return ""
    return (
        f"{more} of {len(index)} videos {'is a copy' if more == 1 else 'are copies'} of others, such as "
        f"{' = '.join(copies[0][:2])}; all of them: {quoted('r3d-fast', 'data', 'check', index.path)}"
    )


def picture_warning(summary: dict[str, Any]) -> str:
    """The warning of files that are pictures though they are called like videos; empty if there are none."""
    names = summary["noted"].get(PICTURE, [])
    if not names:
        return ""
    shown = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
    if len(names) == 1:
        return f"1 file is a picture; it is taken as a video of one frame: {shown}"
    return f"{len(names)} files are pictures; they are taken as videos of one frame: {shown}"


def _print_noted(noted: dict[str, list[str]], videos: int, say: Callable[[str], None]) -> None:
    odd = {name for names in noted.values() for name in names}
    if odd:
        say(f"odd      {len(odd)} of {videos} videos")
    for note, names in noted.items():
        count = counted(len(names), "video")
        shown = f" ({', '.join(names)})" if len(names) <= _FEW else ""
        words = " " + _NOTED[note].format(**_ONE if len(names) == 1 else _MANY) if note in _NOTED else f": {note}"
        say(f"  {count}{shown}{words}")


def _print_left_out(left_out: dict[str, list[str]], details: dict[str, str], say: Callable[[str], None]) -> None:
    say(f"left out {sum(len(paths) for paths in left_out.values())}")
    for reason, paths in left_out.items():
        for path in paths[:_SHOWN]:
            say(f"  {reason}: {path}" + (f" ({details[path]})" if path in details else ""))
        if len(paths) > _SHOWN:
            say(f"  {reason}: and {len(paths) - _SHOWN} more (--json FILE lists all)")


def _print_missing(missing: dict[str, list[str]], videos: int, say: Callable[[str], None]) -> None:
    names = [name for found in missing.values() for name in found]
    if not names:
        return
    splits = ", ".join(f"{len(found)} {split}" for split, found in missing.items())
    say(f"missing  {len(names)} of {len(names) + videos} listed videos ({splits})")
    for name in names[:_SHOWN]:
        say(f"  {name}")
    if len(names) > _SHOWN:
        say(f"  and {len(names) - _SHOWN} more (--json FILE lists all)")

"""Groups: which videos are cut from one recording, so that they belong into one split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipelines.datasets.entries import Entry
from pipelines.datasets.split_names import SPLITS
from pipelines.datasets.text_files import escaped, first_ten
from pipelines.datasets.video_files import ucf_group
from pipelines.errors import DataError, UsageError


def evident_groups(entries: Sequence[Entry], classes: Sequence[str]) -> list[Entry]:
    """The entries with the groups that need no word of the user: those of names as in UCF, and parts of one file."""
    parts = Counter(entry.path for entry in entries if entry.span is not None)

    def group(entry: Entry) -> str:
        if named := ucf_group(entry.path):
            return "/".join((classes[entry.label], *named))
        return entry.path if parts[entry.path] > 1 else ""

    return [replace(entry, group=group(entry)) for entry in entries]


def matched_groups(entries: Sequence[Entry], pattern: str) -> list[Entry]:
    """The entries with the groups that the regular expression `pattern` finds in their paths.

    A group is called like what the brackets in the pattern match, or like the whole match if there are none; a video
    whose path does not match is alone. Raises UsageError for a pattern that is no regular expression, or that matches
    no path.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"group {pattern!r}: neither a column of the lists nor a regular expression ({error})"
        ) from error

    def group(path: str) -> str:
        match = compiled.search(path)
        if match is None:
            return ""
        return "/".join(part for part in match.groups() if part) if match.groups() else match[0]

    found = [replace(entry, group=group(entry.path)) for entry in entries]
    if not any(entry.group for entry in found):
        shown = f", such as {escaped(found[0].path)}" if found else ""
        raise UsageError(
            f"group {pattern!r} matches none of {len(found)} paths{shown}; expected a regular expression for the part "
            f"of the path that cuts of one recording share, or the name of a column of CSV lists"
        )
    return found


def check_parted(entries: Sequence[Entry]) -> None:
    """Raise DataError if a group has videos in more than one split; the message names a video of each."""
    sides: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.group:
            sides.setdefault(entry.group, {}).setdefault(entry.split, entry.path)
    leaks = [
        f"{escaped(group)} ({' and '.join(f'{side}: {escaped(files[side])}' for side in SPLITS if side in files)})"
        for group, files in sorted(sides.items())
        if len(files) > 1
    ]
    if leaks:
        raise DataError(
            f"leak: {len(leaks)} groups are in more than one split: {first_ten(leaks)}; cuts of one recording show the "
            "same scene: keep a group in one split"
        )


def group_warnings(entries: Sequence[Entry]) -> list[str]:
    """Warnings about groups that the user named: videos without one, a single group for all, or one for each video."""
    alone = [entry.path for entry in entries if not entry.group]
    names = {entry.group for entry in entries} - {""}
    warnings = []
    if 1 < len(names) == len(entries) - len(alone):
        first = next(entry for entry in entries if entry.group)
        warnings.append(
            f"each of {len(names)} groups has one video, so none keeps cuts together: {escaped(first.path)} is of "
            f"{escaped(first.group)}; expected a group that several videos share"
        )
    if alone:
        warnings.append(f"{len(alone)} of {len(entries)} videos are of no group, each is alone: {first_ten(alone)}")
    elif len(names) == 1:
        warnings.append(f"all {len(entries)} videos are of one group, {escaped(names.pop())}: none can be held out")
    return warnings

"""Holds out a share of the videos of each class for testing, whole groups together, the same ones on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipelines.datasets.entries import Entry


def hold_out(entries: Sequence[Entry], fraction: float) -> list[Entry]:
    """The entries with splits: in each class about `fraction` of the videos become "test", the others "train".

    Whole groups become "test", in the order of a hash of their names. So the rank of a video stays the same when others
    are added or removed. The last group of a class is always for training, since a class without training videos can't
    be learned.
    """
    groups = grouped(entries)
    sizes = Counter(entry.label for entry in entries)
    wanted = {label: max(1, round(fraction * size)) if fraction > 0 else 0 for label, size in sizes.items()}
    ordered = sorted(groups, key=lambda key: (hashlib.sha256(key.encode()).digest(), key))
    counts = {key: Counter(entry.label for entry in groups[key]) for key in ordered}
    kept = set({label: key for key in ordered for label in counts[key]}.values())  # the last group of each class
    held: Counter[int] = Counter()
    result: list[Entry] = []
    for key in ordered:
        is_test = key not in kept and _is_wanted(counts[key], held, wanted)
        if is_test:
            held.update(counts[key])
        result += (replace(entry, split="test" if is_test else "train") for entry in groups[key])
    return result


def grouped(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    """The entries by their group; one that is alone by its path."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.group or entry.path].append(entry)
    return groups


def _is_wanted(group: Mapping[int, int], held: Mapping[int, int], wanted: Mapping[int, int]) -> bool:
    """Whether a group, with so many videos of each class, is to be held out beside what is `held` already.

    A group of one class is wanted as long as its class lacks videos. One of several classes is wanted if one of them
    has none yet, or if it brings them all in all nearer to what is `wanted` of each.
    """
    lacking = [label for label in group if held[label] < wanted[label]]
    if not lacking or len(group) == 1:
        return bool(lacking)
    before = sum(abs(wanted[label] - held[label]) for label in group)
    after = sum(abs(wanted[label] - held[label] - count) for label, count in group.items())
    return after < before or any(not held[label] for label in lacking)

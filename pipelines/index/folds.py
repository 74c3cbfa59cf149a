"""Folds: the videos of a data set in several parts, each tested by a model that was trained on the others.

A fold is a split of its own, called ``fold-2-of-5``; the rest is called ``without-fold-2-of-5``. Which videos it has
follows from the index alone.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError

_NAME = re.compile(r"(without-)?fold-([1-9][0-9]{0,3})-of-([1-9][0-9]{0,3})")


class Fold(NamedTuple):
    """Part number `part` (from 1) of `parts`; with `is_rest` all others."""

    part: int
    parts: int
    is_rest: bool = False

    def __str__(self) -> str:
        """The name of the fold as a split."""
        return f"{'without-' if self.is_rest else ''}fold-{self.part}-of-{self.parts}"


def fold_named(split: str) -> Fold | None:
    """The fold that is meant by the name of a split; None if it is none of a fold."""
    match = _NAME.fullmatch(split)
    fold = Fold(int(match[2]), int(match[3]), bool(match[1])) if match else None
    return fold if fold is not None and fold.part <= fold.parts and fold.parts > 1 else None


def assign_folds(labels: NDArray[np.int64], groups: Sequence[str], count: int) -> NDArray[np.int64]:
    """The fold, 0..`count`-1, of each of V videos with `labels` and `groups`, int64 [V]: the same on every machine.

    Videos of the same group are in the same fold, and each fold has about the same number of videos of each class. The
    largest groups are dealt first, each to the fold that has the smallest share of its classes, and of several such
    to the one with the fewest videos. Raises DataError if there are fewer groups than folds.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    if len(members) < count:
        raise DataError(
            f"{count} folds of {len(groups)} videos in {len(members)} groups: expected at least one group a fold"
        )
    totals = Counter(labels.tolist())
    by_class: list[Counter[int]] = [Counter() for _ in range(count)]
    sizes = [0] * count
    folds = np.empty(len(groups), np.int64)
    for group in sorted(members, key=lambda name: (-len(members[name]), hashlib.sha256(name.encode()).digest(), name)):
        own = Counter(labels[members[group]].tolist())

        def fullness(fold: int, own: Counter[int] = own) -> tuple[float, int, int]:
            share = sum(videos * by_class[fold][label] / totals[label] for label, videos in own.items())
            return share, sizes[fold], fold

        chosen = min(range(count), key=fullness)
        by_class[chosen].update(own)
        sizes[chosen] += len(members[group])
        folds[members[group]] = chosen
    return folds

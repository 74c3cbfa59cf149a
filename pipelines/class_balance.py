"""What evens out classes of different sizes: how often the videos of a class are shown, or how much a clip weighs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.draws import random_words

_STREAM = 5  # number of this stream of Philox words; those of the sampler are lower


def balanced_rows(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Which of V videos with `labels`, int64 [V], an epoch shows, so that all classes are shown equally often.

    Gives V rows, int64 [V], the classes in turn: the numbers of clips of two classes differ by one at most. Each epoch
    takes the next V of one long sequence of draws. In it the classes take turns, and each class goes through its videos
    in a random order, then through all of them in another, and so on. So no video is shown again before all others of
    its class were, and the rows follow from `seed` and `epoch` alone.
    """
    count, classes = len(labels), np.unique(labels)
    begin, end = epoch * count, (epoch + 1) * count
    rows = np.empty(count, np.int64)
    for turn, label in enumerate(classes.tolist()):
        first, last = (max(0, -((turn - at) // len(classes))) for at in (begin, end))
        if first < last:
            own = _draws(np.flatnonzero(labels == label), first, last, seed, label)
            rows[turn + first * len(classes) - begin :: len(classes)] = own
    return rows


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """How much a clip of each class weighs in the loss, float32 [C], so that all classes weigh equally in sum.

    A weight is in inverse proportion to the number of videos of the class among `labels`, int64 [V]. The mean weight of
    these videos is 1, so that the loss keeps its size. Classes without a video have the weight 1.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.ones(num_classes)
    used = counts > 0
    weights[used] = len(labels) / (used.sum() * counts[used])
    return weights.astype(np.float32)


def _draws(rows: NDArray[np.int64], first: int, last: int, seed: int, label: int) -> NDArray[np.int64]:
    """The draws `first` up to `last` of a class whose videos are at `rows`: each pass over them has another order."""
    size = len(rows)
    passes = []
    for number in range(first // size, (last - 1) // size + 1):
        words = random_words(size, seed, number, label, _STREAM)
        passes.append(rows[np.argsort(words, kind="stable")])
    begin = first // size * size
    return np.concatenate(passes)[first - begin : last - begin]

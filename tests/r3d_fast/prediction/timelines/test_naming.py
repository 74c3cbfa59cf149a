from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.errors import UsageError
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.timelines.naming import Naming, named

CLASSES = ("a", "b", "c")


def hops(probabilities: list[float], *, video: str = "v", hop: float = 1.0, start: float = 0.0) -> list[Moment]:
    """Hops in which class a has these probabilities, b twice as much of the rest as c."""
    return [
        Moment(video, start + k * hop, start + (k + 1) * hop, probabilities=np.array([p, (1 - p) * 2 / 3, (1 - p) / 3]))
        for k, p in enumerate(probabilities)
    ]


def of_a(moments: list[Moment]) -> list[float]:
    return [float(moment.probabilities[0]) if moment.probabilities is not None else -1 for moment in moments]


def test_the_likeliest_classes_that_reach_the_threshold_are_named() -> None:
    found = list(named(hops([0.7, 0.1]), CLASSES, Naming(top=2)))
    assert [[name for name, _ in moment.classes] for moment in found] == [["a", "b"], ["b", "c"]]
    found = list(named(hops([0.7, 0.5]), CLASSES, Naming(threshold=0.7)))
    assert [moment.classes for moment in found] == [(("a", 0.7),), ()]


@pytest.mark.parametrize(
    ("seconds", "hop", "half"), [(3, 1.0, 1), (2, 1.0, 1), (1.9, 1.0, 0), (4, 1.0, 2), (1, 0.2, 2)]
)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_probabilities_are_averaged_over_the_hops_about(seconds: float, hop: float, half: int, count: int) -> None:
    values = np.random.default_rng(count).random(count).tolist()
    found = list(named(hops(values, hop=hop), CLASSES, Naming(smooth_seconds=seconds)))
    assert [moment.start for moment in found] == pytest.approx([k * hop for k in range(count)])
    wanted = [np.mean(values[max(0, k - half) : k + half + 1]) for k in range(count)]
    assert of_a(found) == pytest.approx(wanted)


def test_averages_stop_at_errors_gaps_and_ends() -> None:
    bad = Moment("v", 2.0, 3.0, error="truncated")
    runs = [hops([0.0, 0.6]), [bad], hops([1.0, 0.2], start=5.0), hops([0.4], start=9.0), hops([0.8, 0.0], video="w")]
    moments = [moment for run in runs for moment in run]
    found = list(named(moments, CLASSES, Naming(smooth_seconds=3)))
    assert [(m.video, m.start, m.error) for m in found] == [(m.video, m.start, m.error) for m in moments]
    assert of_a(found) == pytest.approx([0.3, 0.3, -1, 0.6, 0.6, 0.4, 0.4, 0.4])


def test_a_hop_is_given_as_soon_as_its_neighbours_are_there() -> None:
    taken = 0

    def counted() -> Iterator[Moment]:
        nonlocal taken
        for moment in hops([0.5] * 10):
            taken += 1
            yield moment

    for half in (0, 2):
        taken = 0
        found = named(counted(), CLASSES, Naming(smooth_seconds=2 * half))
        for number in range(8):
            next(found)
            assert taken == number + 1 + half


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"top": 0}, "top 0"),
        ({"threshold": 1.1}, "threshold 1.1"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"smooth_seconds": -1}, "smooth -1"),
        ({"smooth_seconds": float("inf")}, "smooth inf"),
    ],
)
def test_values_out_of_range(values: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Naming(**values)

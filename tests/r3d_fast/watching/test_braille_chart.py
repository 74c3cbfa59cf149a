"""Charts of letters: of exactly their size, with the right numbers beside them and the dots where they belong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from r3d_fast.watching.braille_chart import Curve, as_figure, beside, chart, plain_text


def curve(values: Sequence[float], name: str = "a", *, is_marked: bool = False, begin: int = 1) -> Curve:
    steps = np.arange(begin, begin + len(values), dtype=np.float64)
    return Curve(name, steps, np.array(values, np.float64), "cyan", is_marked)


def drawn(*curves: Curve, width: int = 40, height: int = 8, is_ascii: bool = False) -> list[str]:
    return [plain_text(line) for line in chart("loss", curves, width, height, is_ascii=is_ascii)]


def test_a_falling_line_runs_from_corner_to_corner() -> None:
    lines = drawn(curve([3.0, 1.0]), is_ascii=True, width=13, height=6)
    assert lines == ["loss", "       3 .", "          .", "           .", "       1    .", "         1  2"]


def test_the_dots_are_braille() -> None:
    assert drawn(curve([0.0, 1.0]), width=13, height=4) == ["loss", "       1   ⡠⠊", "       0 ⡠⠊", "         1  2"]


@pytest.mark.parametrize("count", [0, 1, 2, 50, 5000])
@pytest.mark.parametrize(("width", "height"), [(12, 3), (40, 10), (63, 19)])
@pytest.mark.parametrize("value", [0.0, -1e-9, 1e300])
def test_a_chart_has_its_size_whatever_its_numbers(count: int, width: int, height: int, value: float) -> None:
    lines = drawn(
        curve([value] * count), curve([value] * (count // 2), "b", is_marked=True), width=width, height=height
    )
    assert len(lines) == height
    assert all(len(line) <= max(width, 24) for line in lines)


def test_the_largest_and_smallest_value_and_the_steps_stand_beside() -> None:
    lines = drawn(curve([0.5, 2.25, 0.125], begin=100))
    assert lines[1].split()[0] == "2.25"
    assert lines[-2].split()[0] == "0.125"
    assert lines[-1].split() == ["100", "102"]


def test_points_are_big_where_asked_and_named_in_the_title() -> None:
    lines = drawn(curve([1.0, 2.0]), curve([1.5], "test", is_marked=True, begin=2))
    assert lines[0] == "loss  ⠤ a  ● test"
    assert sum(line.count("●") for line in lines[1:]) == 1


def test_many_points_of_a_column_are_their_mean() -> None:
    noisy = np.tile([0.0, 10.0], 5000)
    lines = drawn(curve(noisy.tolist()), width=20)
    high, low = float(lines[1].split()[0]), float(lines[-2].split()[0])
    assert 4 < low <= 5 <= high < 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234567.0, "1.2e+06"), (0.00012345, "1.2e-04"), (12.345678, "12.35"), (-0.5, "-0.5")],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert as_figure(value) == text
    assert len(as_figure(value)) <= 8


def test_charts_stand_beside_each_other() -> None:
    pair = beside([chart("left", [curve([1, 2])], 30, 5), chart("right", [curve([1, 2])], 30, 5)], 31)
    assert len(pair) == 5
    assert plain_text(pair[0]) == "left" + " " * 27 + "right"

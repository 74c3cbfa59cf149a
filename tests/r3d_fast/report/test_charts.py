from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray

from r3d_fast.report.charts import Chart, Curve, draw_chart, smoothed, thinned

SVG = "{http://www.w3.org/2000/svg}"
X = np.arange(1.0, 101.0)


def drawn(*curves: Curve, percent: bool = False) -> ET.Element:
    text = draw_chart(Chart("Title <&>", "about", curves, percent), "key")
    return ET.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '
                                      'xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))  # fmt: skip


def points(chart: ET.Element, name: str) -> NDArray[np.float64]:
    """The points float64 [N, 2] of the curve `name`, in the units of the SVG."""
    path = chart.find(f".//{SVG}g[@id='key-{name}0']/{SVG}path")
    assert path is not None
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"]), np.float64)


@pytest.mark.parametrize(("how", "name"), [("exact", "exact"), ("points", "points"), ("noisy", "values")])
def test_the_points_are_those_of_the_values(how: str, name: str) -> None:
    y = np.random.default_rng(0).random(100)
    chart = drawn(Curve("", X, y, 0, how))  # type: ignore[arg-type]
    found = points(chart, name)
    assert len(found) == 100
    for column, values, sign in ((0, X, 1), (1, y, -1)):
        slope, start = np.polyfit(values, found[:, column], 1)
        assert np.sign(slope) == sign
        np.testing.assert_allclose(slope * values + start, found[:, column], atol=1e-4)


def test_colours_are_those_of_the_page_and_texts_are_texts() -> None:
    chart = drawn(Curve("", X, X / 100, 1, "mean"), Curve("a", X[:1], np.array([0.5]), 0, "level"), percent=True)
    text = ET.tostring(chart, encoding="unicode")
    assert re.findall(r"#[0-9a-f]{6}\b", text) == []
    assert {"var(--c1)", "var(--muted)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", text))
    labels = [element.text for element in chart.iter(f"{SVG}text")]
    assert {"step", "0 %", "100 %"} <= set(labels)
    assert chart.attrib["role"] == "img"
    titles = [element.text for element in chart if element.tag in (f"{SVG}title", f"{SVG}desc")]
    assert titles == ["Title <&>", "about"]


def test_every_id_begins_with_the_key_and_every_reference_leads_to_one() -> None:
    text = ET.tostring(drawn(Curve("", X, X, 0, "points")), encoding="unicode")
    identifiers = re.findall(r' id="([^"]*)"', text)
    assert all(identifier.startswith("key-") for identifier in identifiers)
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)) - {("", "")}
    for reference in re.findall(r'(?:href="#|url\(#)([^")]*)', text):
        assert reference in identifiers


def test_a_chart_is_drawn_alike_each_time() -> None:
    chart = Chart("", "", (Curve("", X, X, 0, "points"),))
    assert draw_chart(chart, "a") == draw_chart(chart, "a")


@pytest.mark.parametrize("count", [0, 1, 300, 301, 12_345])
def test_long_curves_are_thinned_to_the_means_of_neighbours(count: int) -> None:
    y = np.random.default_rng(1).random(count)
    x, means = thinned(np.arange(count, dtype=float), y)
    assert len(x) == len(means) <= 300
    size = -(-count // 300)
    assert means.tolist() == pytest.approx([y[at : at + max(1, size)].mean() for at in range(0, count, max(1, size))])


def test_the_moving_mean_is_that_of_what_is_there() -> None:
    y = np.arange(90.0)
    found = smoothed(y)
    assert found[0] == pytest.approx(np.mean(y[:2]))
    assert found[45] == pytest.approx(45.0)
    assert smoothed(np.array([3.0])).tolist() == [3.0]


def test_a_chart_without_values_is_empty() -> None:
    nothing = np.zeros(0)
    level = Curve("level", np.zeros(1), np.array([0.5]), 0, "level")
    assert Chart("", "", (Curve("", nothing, nothing, 0, "mean"), level)).is_empty
    assert not Chart("", "", (Curve("", X, X, 0, "mean"), level)).is_empty

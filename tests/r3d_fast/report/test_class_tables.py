from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_files

from r3d_fast.report.class_tables import MOST_CLASSES, class_rows, confused_pairs, confusion, interval
from r3d_fast.runs.history import read_history


def figures(folder: Path, classes: int, videos: int) -> dict[str, Any]:
    run = run_files.write_run(folder / "run", [f"c{number}" for number in range(classes)], videos=videos, epochs=1)
    return read_history(run).figures


def test_the_pairs_that_are_confused_most_come_first(tmp_path: Path) -> None:
    found = figures(tmp_path, 6, 400)
    matrix = np.array(found["video"]["confusion"])
    pairs = confused_pairs(found)
    np.fill_diagonal(matrix, 0)
    assert [pair.count for pair in pairs] == sorted(matrix[matrix > 0].tolist(), reverse=True)[:12]
    assert len(pairs) >= 8
    for pair in pairs:
        assert matrix[int(pair.label[1:]), int(pair.predicted[1:])] == pair.count
        assert pair.share == pair.count / found["video"]["counts"][pair.label]


def test_of_very_many_classes_those_with_mistakes_are_in_the_matrix(tmp_path: Path) -> None:
    found = figures(tmp_path, 400, 3000)
    matrix = confusion(found)
    assert matrix is not None
    assert (len(matrix.rows), matrix.left_out) == (MOST_CLASSES, 400 - MOST_CLASSES)
    whole = np.array(found["video"]["confusion"])
    errors = whole.sum(axis=0) + whole.sum(axis=1) - 2 * whole.diagonal()
    assert min(row.errors for row in matrix.rows) >= sorted(errors.tolist())[-MOST_CLASSES]
    places = [row.place for row in matrix.rows]
    assert [row.counts for row in matrix.rows] == [tuple(row) for row in whole[np.ix_(places, places)].tolist()]


def test_figures_of_an_older_version_give_what_they_have() -> None:
    video = {"per_class": {"a": 0.5, "b": None}, "confusion": [[1, 1], [0, 0]], "top1": 0.5}
    rows = class_rows({"video": video}, {"a": 7})
    assert [(row.name, row.training, row.videos, row.recall, row.f1) for row in rows] == [
        ("a", 7, 2, 0.5, None), ("b", None, 0, None, None),
    ]  # fmt: skip
    matrix = confusion({"video": video})
    assert matrix is not None
    assert [row.recall for row in matrix.rows] == [0.5, None]


@pytest.mark.parametrize(
    "video",
    [None, 3, {}, {"per_class": []}, {"per_class": {"a": "x"}}, {"per_class": {"a": 1}, "confusion": [[1, 2]]},
     {"per_class": {"a": 1}, "confusion": "x"}, {"per_class": {"a": 1, "b": 1}, "confusion": [[1], [1]]},
     {"per_class": {"a": 2.5}, "counts": {"a": -1}, "confusion": [["x"]]}],
)  # fmt: skip
def test_damaged_figures_give_nothing_wrong(video: Any) -> None:
    found = {"video": video}
    for row in class_rows(found, {}):
        assert row.recall in (None, 1.0)
    confusion(found)
    assert confused_pairs(found) == []


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (60, 64), (1, 1)])
def test_the_interval_is_that_of_wilson(hits: int, count: int) -> None:
    share, z = hits / count, 1.959964
    low, high = interval(share, count)
    # Both ends are the shares p for which the observed share is z standard errors away: Wilson's definition.
    for end in (low, high):
        assert abs(share - end) == pytest.approx(z * np.sqrt(end * (1 - end) / count), abs=1e-6)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_the_cells_of_many_classes_say_the_same_as_the_matrix(tmp_path: Path) -> None:
    found = figures(tmp_path, 250, 2000)
    whole = found["video"].pop("confusion")
    matrix = np.array(whole)
    dense = {"video": {**found["video"], "confusion": whole}}
    rows, columns = np.nonzero(matrix)
    cells = np.stack([rows, columns, matrix[rows, columns]], axis=1).tolist()
    sparse = {"video": {**found["video"], "confusion_cells": cells}}
    assert confusion(sparse) == confusion(dense)
    assert confused_pairs(sparse) == confused_pairs(dense)
    for damaged in ("x", [3], [[1, 2]], [["a", 0, 1]], [[250, 0, 1]], [[-1, 0, 1]]):
        assert confusion({"video": {**found["video"], "confusion_cells": damaged}}) is None

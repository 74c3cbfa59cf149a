from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from bench.studies.learning_curve import (
    chance_of_telling_apart,
    compared,
    learning_curve,
    read_records,
    spread_of,
    told_apart,
)


def test_a_curve_has_a_point_an_evaluation(tmp_path: Path) -> None:
    records = [
        {"kind": "loader", "step": 0},
        {"kind": "train", "epoch": 1, "step": 1, "loss": 3.0, "seconds": 0.5},
        {"kind": "train", "epoch": 1, "step": 2, "loss": 0.0, "seconds": 0.25},
        {"kind": "eval", "epoch": 1, "step": 2, "loss": 2.0, "top1": 0.25, "seconds": 100.0},
        {"kind": "train", "epoch": 2, "step": 3, "loss": None, "seconds": 1.0},
        {"kind": "eval", "epoch": 2, "step": 3, "loss": 1.0, "top1": 0.5, "seconds": 100.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert learning_curve(read_records(tmp_path)) == [
        {"epoch": 1, "step": 2, "seconds": 0.75, "train loss": 1.5, "test loss": 2.0, "top1": 0.25},
        {"epoch": 2, "step": 3, "seconds": 1.75, "train loss": None, "test loss": 1.0, "top1": 0.5},
    ]


def test_damaged_records_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "loader", "step": 0}\n{"kind": "tr\n{"kind": "eval", "step": 2}\n'
    )
    assert [record["step"] for record in read_records(tmp_path)] == [0, 2]
    assert f"warning: {tmp_path}: metrics.jsonl: 1 line left out" in capsys.readouterr().err


def test_the_spread_of_seeds() -> None:
    assert spread_of([1.0, 2.0, 6.0]) == {
        "mean": 3.0, "deviation": pytest.approx(7**0.5), "low": 1.0, "high": 6.0,
    }  # fmt: skip
    assert spread_of([2.0]) == {"mean": 2.0, "deviation": None, "low": 2.0, "high": 2.0}


def test_two_are_told_apart_where_their_ranges_do_not_overlap() -> None:
    assert told_apart([1.0, 2.0], [3.0, 2.5])
    assert told_apart([3.0, 2.5], [1.0, 2.0])
    assert not told_apart([1.0, 2.0], [2.0, 3.0])
    assert compared([1.0, 2.0], [3.0, 2.5]) == {
        "differences by seed": [2.0, 0.5], "mean difference": 1.25, "told apart": True,
    }  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_chance_is_that_of_all_orders(seeds: int) -> None:
    orders = list(itertools.permutations(range(2 * seeds)))
    told = sum(told_apart(order[:seeds], order[seeds:]) for order in orders)
    assert chance_of_telling_apart(seeds) == pytest.approx(told / len(orders))

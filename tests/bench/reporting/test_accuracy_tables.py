from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import cells

from bench.reporting.accuracy_tables import accuracy_tables
from bench.reporting.curve_chart import draw_curves
from bench.reporting.results import StudyReport, load_any, save
from bench.reporting.tables import tables
from pipelines.errors import UsageError


def curve(top1: float, loss: float, steps: tuple[int, ...] = (4, 8)) -> list[dict[str, Any]]:
    return [
        {"epoch": number + 1, "step": step, "seconds": float(step), "train loss": 2.0, "test loss": loss, "top1": top1}
        for number, step in enumerate(steps)
    ]


def spread(*values: float) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "deviation": 0.05, "low": min(values), "high": max(values)}


def values(**more: Any) -> dict[str, Any]:
    def contender(*ends: tuple[float, float]) -> dict[str, Any]:
        top1, losses = zip(*ends, strict=True)
        return {
            "last": {"top1": spread(*top1), "test loss": spread(*losses), "train loss": spread(2.0)},
            "curves": {str(seed): curve(*end) for seed, end in enumerate(ends)},
        }

    return {
        "kind": "accuracy", "command": "bench studies accuracy", "commit": "abc1234", "machine": "Some CPU, no GPU",
        "versions": {}, "data": "motions", "videos": {"train": 24, "test": 16}, "classes": 8, "config": "anchor",
        "vary": None, "minutes": None, "seeds": 2,
        "settings": {
            "clip": {"num_frames": 8}, "augment": {"size_px": 56}, "train": {"epochs": 25},
            "model": {"name": "r3d18", "width": 64}, "loader": {"batch_size": 8},
        },
        "the same in PyTorch": {"batches equal": 32, "first loss, largest difference as a share": 2e-7},
        "contenders": {
            "r3d-fast": contender((0.25, 2.0), (0.5, 2.2)), "PyTorch": contender((0.75, 1.9), (0.625, 2.1)),
        },
        "comparisons": [
            {"contender": "PyTorch", "beside": "r3d-fast", "figure": "top1", "differences by seed": [0.5, 0.125],
             "mean difference": 0.3125, "told apart": True},
            {"contender": "PyTorch", "beside": "r3d-fast", "figure": "test loss", "differences by seed": [-0.1, -0.1],
             "mean difference": -0.1, "told apart": False},
        ],
        "told apart by chance": 1 / 3,
        **more,
    }  # fmt: skip


def test_the_tables_hold_the_figures_and_the_verdicts() -> None:
    text = tables([StudyReport("accuracy", values())])
    assert (
        "Some CPU, no GPU; motions: 8 classes, 24 videos to train on and 16 to test; r3d18 of width 64, clips of "
        "8x56x56; batch 8, 25 epochs, 2 seeds; commit abc1234; `bench studies accuracy`:"
    ) in text
    assert cells(text, "r3d-fast") == [
        ["r3d-fast", "37.5 (25.0 to 50.0)", "5.0", "25.0 50.0", "2.100 (2.000 to 2.200)", "0.050",
         "2.000 (2.000 to 2.000)", "2"],
    ]  # fmt: skip
    assert "With 2 seeds chance alone does that in 33 of 100 comparisons." in text
    rare = tables([StudyReport("accuracy", values(**{"told apart by chance": 1e-5}))])
    assert "With 2 seeds chance alone does that in fewer than 1 of 100 comparisons." in rare
    assert "- top1, PyTorch beside r3d-fast: **told apart**, +31.2 % (seed by seed +50.0 +12.5)" in text
    assert "- test loss, PyTorch beside r3d-fast: **not told apart**, -0.100 (seed by seed -0.100 -0.100)" in text
    assert "the same clips: 32 batches with equal SHA-256. Its first loss differs by 2e-07 of it." in text
    assert cells(text, "1") == [["1", "2.000", "2.100", "37.5", "2.000", "2.000", "68.8"]]


def test_curves_of_unequal_steps_have_no_table() -> None:
    unequal = values()
    unequal["contenders"]["PyTorch"]["curves"]["0"] = curve(0.5, 2.0, (4,))
    assert not any("on the way" in block for block in accuracy_tables(unequal))
    assert accuracy_tables({"kind": "accuracy"}) == []


def test_long_curves_are_shown_in_ten_rows_that_end_with_the_last() -> None:
    long = values()
    for contender in long["contenders"].values():
        contender["curves"] = {"0": curve(0.5, 2.0, tuple(range(1, 26)))}
    rows = accuracy_tables(long)[-1].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows][:2] == ["2", "5"]
    assert len(rows) == 10
    assert rows[-1].startswith("| 25 |")


@pytest.mark.parametrize("minutes", [None, 0.5])
def test_the_curves_are_drawn_and_a_stored_report_draws_the_same(minutes: float | None, tmp_path: Path) -> None:
    save(StudyReport("accuracy", values(minutes=minutes)), tmp_path / "a.json")
    stored = load_any(tmp_path / "a.json")
    assert isinstance(stored, StudyReport)
    draw_curves(values(minutes=minutes), tmp_path / "a.png")
    draw_curves(stored.values, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw_curves(values(minutes=minutes), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_a_single_evaluation_is_a_mark(tmp_path: Path) -> None:
    """A line through one point would be nothing. The right panel has no legend."""
    from matplotlib.image import imread

    report = values()
    for contender in report["contenders"].values():
        contender["curves"] = {seed: points[:1] for seed, points in contender["curves"].items()}
    draw_curves(report, tmp_path / "a.png")
    image = imread(tmp_path / "a.png")[..., :3]
    right = 255 * image[:, image.shape[1] // 2 :]
    assert (np.abs(right - (0x12, 0x80, 0x5C)).sum(axis=2) < 12).sum() > 20


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a report without curves; expected at least one to draw"):
        draw_curves(values(contenders={}), tmp_path / "a.svg")
    with pytest.raises(UsageError, match="expected a name that ends in"):
        draw_curves(values(), tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []

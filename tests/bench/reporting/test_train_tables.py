"""Reports of training: what their figures have to be, and what is printed and drawn of them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from reports import MACHINE

from bench.reporting.chart import draw
from bench.reporting.comparison import compare
from bench.reporting.figures import LOADER, SYNTHETIC, TRAINING, Figures, MeasuredRun
from bench.reporting.results import TRAIN_KIND, ThroughputReport, load, load_any, save
from bench.reporting.tables import tables
from bench.reporting.train_tables import REFERENCE
from pipelines.errors import UsageError


def made(
    training: tuple[float, ...] = (50.0, 20.0, 45.0, 48.0, 49.0), device: str = "cpu", **changes: Any
) -> ThroughputReport:
    run = MeasuredRun(
        "segments",
        2,
        (
            Figures(SYNTHETIC, (60.0, 25.0, 60.0, 60.0, 60.0), 16, step_ms=(130.0,) * 5, loss=(4.6, 0.1)),
            Figures(LOADER, (200.0, 90.0, 50.0, 200.0, 200.0), 16),
            Figures(TRAINING, training, 16, waited=(0.1, 0.0, 0.5, 0.2, 0.3), step_ms=(140.0,) * 5, loss=(4.6, 4.1)),
        ),
        "bf16",
        "NDHWC",
    )
    settings = {"batch_size": 8, "device": device, "model": "r3d10", "width": 8, "num_frames": 16, "size_px": 112}
    return ThroughputReport(
        1, TRAIN_KIND, "bench train throughput", "abc1234", MACHINE, settings, (replace(run, **changes),)
    )


def test_training_is_set_against_the_ceiling_that_was_lower_in_the_same_round() -> None:
    run = made().runs[0]
    # 50/60, 20/25, 45/50 (the loader's was lower there), 48/60, 49/60.
    assert run.of_ceiling() == pytest.approx((49 / 60, 0.8, 0.9))
    assert (run.title, run.base) == ("segments, bf16, NDHWC", TRAINING)


def test_tables_and_the_foreign_figure_only_beside_a_gpu() -> None:
    text = tables([made(device="gpu")])
    rates = "48.0 (20.0 to 50.0) | 60.0 (25.0 to 60.0) | 200 (50.0 to 200)"
    row = f"| bf16 | NDHWC | {rates} | 82 % (80 to 90) | 20 % (0 to 50) |"
    assert row in text
    assert row in tables([made()], brief=True)
    assert "| bf16 | NDHWC | 140 | 130 | - | - | - | - | 4.60 to 0.10 | 4.60 to 4.10 |" in text
    assert "; r3d10 of width 8, clips of 16x112x112; batch 8; 5 rounds; " in text
    assert REFERENCE.startswith("Somebody else's figure, not measured here: ")
    assert all(number in REFERENCE for number in ("65 clips/s", "156 clips/s", "V100"))
    for brief in (False, True):
        assert tables([made(device="gpu")], brief=brief).count(REFERENCE) == 1
        assert "V100" not in tables([made()], brief=brief)


def test_results_come_back_and_are_compared(tmp_path: Path) -> None:
    save(made(), tmp_path / "a.json")
    assert load(tmp_path / "a.json") == load_any(tmp_path / "a.json") == made()
    faster = compare(made((20.0, 21.0, 22.0, 23.0, 24.0)), made((50.0, 51.0, 52.0, 53.0, 54.0)))[2]
    assert (faster.run, faster.name, faster.verdict) == ("segments, bf16, NDHWC", TRAINING, "faster")
    plain = [replace(run, precision=None, layout=None) for run in made().runs]
    other = ThroughputReport(1, "loader throughput", "", "", MACHINE, {}, tuple(plain))
    with pytest.raises(UsageError, match="results of 'train throughput' and of 'loader throughput'"):
        compare(made(), other)
    draw(made(), tmp_path / "a.svg")
    assert "Clips per second in training" in (tmp_path / "a.svg").read_text() or (tmp_path / "a.svg").stat().st_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": None}, "no precision or layout"),
        ({"layout": ""}, "no precision or layout"),
        ({"figures": made().runs[0].figures[:2]}, "expected ['synthetic', 'loader', 'training']"),
        (
            {"figures": (*made().runs[0].figures[:2], replace(made().runs[0][TRAINING], waited=()))},
            "training: no waited",
        ),
        ({"figures": (replace(made().runs[0][SYNTHETIC], step_ms=()), *made().runs[0].figures[1:])}, "no step_ms"),
    ],
)
def test_runs_that_lack_what_training_has_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        made(**changes)
    values = json.loads(json.dumps(asdict(made())))
    values["runs"][0] |= json.loads(json.dumps({key: _plain(value) for key, value in changes.items()}))
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="damaged results: "):
        load(tmp_path / "a.json")


def _plain(value: Any) -> Any:
    return [asdict(figures) for figures in value] if isinstance(value, tuple) else value


def test_figures_of_training_that_cannot_be_are_refused() -> None:
    good = made().runs[0][TRAINING]
    for change in ({"waited": (0.1,)}, {"waited": (1.1,) * 5}, {"waited": (math.nan,) * 5}, {"step_ms": (0.0,) * 5},
                   {"step_ms": (1.0,)}, {"loss": (math.nan, 1.0)}):  # fmt: skip
        with pytest.raises(UsageError):
            replace(good, **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a precision or layout in 'loader throughput'"):
        replace(made(), kind="loader throughput")

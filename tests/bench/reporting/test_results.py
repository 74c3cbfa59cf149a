from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from reports import FULL, report, run

from bench.reporting.figures import Figures, MeasuredRun, spread
from bench.reporting.results import load, load_any, save
from pipelines.errors import UsageError

# Figures and their ratios.


def test_figures_say_their_spread() -> None:
    figures = run()["r3d-fast"]
    assert (figures.median, figures.low, figures.high) == (101.0, 99.0, 120.0) == spread(figures.clips_per_second)
    assert figures.frames_per_second == 16 * 101.0
    assert figures.cpu_ms == pytest.approx(20.0)
    assert run()["decode only (ceiling)"].cpu_ms is None
    with pytest.raises(FrozenInstanceError):
        figures.name = "other"  # type: ignore[misc]
    with pytest.raises(UsageError, match="no values"):
        spread([])


def test_ratios_are_of_each_round_by_itself() -> None:
    # The machine was slower from round to round, for both: unpaired, 40 / 40 would be among the ratios.
    slowing = MeasuredRun(
        "segments", 1, (Figures("r3d-fast", (80.0, 40.0, 22.0), 8), Figures("peer", (40.0, 20.0, 10.0), 8))
    )
    assert slowing.ratio("peer") == pytest.approx((2.0, 2.0, 2.2))
    assert slowing.ratio("r3d-fast", base="peer") == pytest.approx((0.5, 1 / 2.2, 0.5))
    assert slowing.ratio("r3d-fast") == (1.0, 1.0, 1.0)
    for name, base in (("OpenCV", "peer"), ("peer", "OpenCV")):
        with pytest.raises(UsageError, match="no contender 'OpenCV' in this run; there are r3d-fast, peer"):
            slowing.ratio(name, base)


def test_figures_that_nothing_measured_are_refused() -> None:
    for rates in ((), (0.0,), (-1.0,), (math.nan,), (1.0, math.inf)):
        with pytest.raises(UsageError, match="peer: "):
            Figures("peer", rates, 16)
    good = Figures("peer", (1.0, 2.0), 16)
    changes: list[dict[str, Any]] = [
        {"name": " "},
        {"frames_per_clip": 0},
        {"cpu_seconds_per_clip": (-0.1,)},
        {"bytes_per_clip": math.nan},
        {"stages_ms": {"read": -1.0}},
    ]
    for change in changes:
        with pytest.raises(UsageError):
            replace(good, **change)
    with pytest.raises(UsageError, match=r"\[1, 2\] rounds in one run"):
        MeasuredRun("segments", 1, (good, Figures("other", (1.0,), 16)))
    with pytest.raises(UsageError, match="peer is there twice"):
        MeasuredRun("segments", 1, (good, good))
    with pytest.raises(UsageError, match="segments, 2 workers is there twice"):
        report(run(), run())


# The file.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(FULL, tmp_path / "r.json")
    return tmp_path / "r.json"


def test_a_report_comes_back_as_it_was(saved: Path) -> None:
    assert load(saved) == FULL
    assert load_any(saved) == FULL
    assert [path.name for path in saved.parent.iterdir()] == ["r.json"]


def nodes(values: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below `values`."""
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in parts:
        yield (*where, key)
        yield from nodes(value, (*where, key))


def changed(where: tuple[Any, ...], change: Callable[[Any, Any], object]) -> str:
    """The text of a whole report after `change(holder, key)` of one place."""
    values = json.loads(json.dumps(asdict(report(missing={"a": "b"}, excluded=FULL.excluded))))
    holder = values
    for key in where[:-1]:
        holder = holder[key]
    change(holder, where[-1])
    return json.dumps(values)


def put(value: Any, holder: Any, key: Any) -> None:
    holder[key] = value


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_damaged_value_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = json.loads(json.dumps(asdict(report(missing={"a": "b"}, excluded=FULL.excluded))))
    free = ("settings",)  # whatever was set is kept
    wrongs: list[Any] = [{"no": ["such"]}, [[]], True]
    places = [where for where in nodes(whole) if where[:1] != free]
    assert len(places) > 60
    for where in places:
        for wrong in wrongs:
            if where != ("extra",) or not isinstance(wrong, dict):
                refusal(tmp_path / "r.json", changed(where, partial(put, wrong)))


def test_missing_and_unknown_keys_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    required: list[tuple[Any, ...]] = [
        ("machine",), ("machine", "cpu"), ("runs",), ("runs", 0, "workers"), ("runs", 0, "figures", 1, "name"),
        ("runs", 0, "figures", 2, "clips_per_second"),
    ]  # fmt: skip
    for where in required:
        message = refusal(path, changed(where, lambda holder, key: holder.pop(key)))
        assert f"damaged results: {'.'.join(map(str, where))}: Field required" in message
    for where in [("machine", "cpuu"), ("runs", 0, "worker"), ("runs", 0, "figures", 0, "clips_per_sec"), ("run",)]:
        message = refusal(path, changed(where, lambda holder, key: holder.update({key: 1})))
        assert f"damaged results: {'.'.join(map(str, where))}: " in message


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_and_infinity_are_refused_everywhere(saved: Path, token: str) -> None:
    text = saved.read_text(encoding="utf-8")
    for value in (": 0.25", ": 15.6", ": 96", ": 1.5", " 50.0"):
        assert value in text
        refusal(saved, text.replace(value, value[: value.index(" ") + 1] + token, 1))


def test_files_that_are_no_results_are_refused(tmp_path: Path, saved: Path) -> None:
    text = saved.read_text(encoding="utf-8")
    for end in range(0, len(text) - 2, 97):
        assert "not JSON results" in refusal(saved, text[:end])
    assert "not a text file" in refusal(saved, b"\xff\xfe\x00")
    assert "not JSON results" in refusal(saved, "[" * 100_000)
    for other in ("[]", "3", "null", '"x"', "{}", '{"kind": 3}'):
        assert "no kind; expected an object with kind 'loader throughput'" in refusal(saved, other)
    assert "results of 'model speed'; expected 'loader throughput'" in refusal(saved, '{"kind": "model speed"}')
    assert "format 2; this version reads format 1" in refusal(saved, text.replace('"format": 1', '"format": 2'))
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match=r"can't be read: .*; expected a results file"):
            load(missing)


def test_a_report_that_cannot_be_written_leaves_all_as_it_was(saved: Path) -> None:
    before = saved.read_bytes()
    for extra in ({"x": math.nan}, {"x": Path("y")}, {"x": "\ud800"}):
        with pytest.raises(UsageError, match=re.escape(f"{saved}: ")):
            save(report(extra=extra), saved)
    assert saved.read_bytes() == before
    folder = saved.parent / "folder.json"
    folder.mkdir()
    for target in (folder, saved.parent / "none" / "r.json", saved / "r.json", saved.parent / ("x" * 300)):
        with pytest.raises(UsageError, match="can't be written"):
            save(FULL, target)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["folder.json", "r.json"]

from __future__ import annotations

import itertools
import json
import math
import random
import re
import statistics
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import compare as comparing
from bench.chart import draw
from bench.compare import as_text, compare, mann_whitney, u_distribution, unmatched, verdict
from bench.machine import Machine
from bench.report import as_rate, load_folder, tables, terminal
from bench.results import KIND, Figures, OtherReport, Report, Run, load, load_any, save, spread
from pipelines.errors import EnvironmentProblem, UsageError

MACHINE = Machine("Some CPU", 4, 15.6, None, "Linux 6.1, x86_64", "3.11.7", {"av": "14.0"})
STAGES = {"hand-over": 0.125, "read": 0.25, "decode": 5.0}
PEER = (50.0, 60.0, 40.0, 55.0, 45.0)


def run(ours: tuple[float, ...] = (100.0, 120.0, 110.0, 99.0, 101.0), sampling: str = "segments") -> Run:
    return Run(
        sampling,
        2,
        (
            Figures("r3d-fast", ours, 16, (0.01, 0.03, 0.02, 0.02, 0.02), 41234.0, STAGES, "identical"),
            Figures("decord", PEER, 16, (0.05,) * 5, frames="3 of 96 videos differ"),
            Figures("decode only (ceiling)", (200.0,) * 5, 16),
        ),
    )


def report(*runs: Run, **fields: Any) -> Report:
    whole = Report(1, KIND, "bench loader throughput", "abc1234", MACHINE, {"batch_size": 8}, runs or (run(),))
    return replace(whole, **fields)


FULL = report(
    run(),
    run((300.0, 310.0, 290.0, 305.0, 295.0), "consecutive"),
    replace(run(), workers=1),
    missing={"torchcodec": "pip install torchcodec"},
    excluded=({"path": "a.avi", "reason": "empty"}, {"path": "b|c.avi", "reason": "truncated"}),
    extra={"first batch seconds": 1.5, "index": {"files": 96}},
)


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the Markdown tables of `text` that start with the cell `first`."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]
    return [row for row in rows if row[0] == first]


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
    slowing = Run("segments", 1, (Figures("r3d-fast", (80.0, 40.0, 22.0), 8), Figures("peer", (40.0, 20.0, 10.0), 8)))
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
        Run("segments", 1, (good, Figures("other", (1.0,), 16)))
    with pytest.raises(UsageError, match="peer is there twice"):
        Run("segments", 1, (good, good))
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


# Comparing.


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (2, 3), (4, 4), (5, 3), (5, 6)])
def test_the_distribution_of_u_is_that_of_all_orders(m: int, n: int) -> None:
    counted: Counter[int] = Counter()
    for ours in itertools.combinations(range(m + n), m):
        theirs = set(range(m + n)) - set(ours)
        counted[sum(y > x for x in ours for y in theirs)] += 1
    assert u_distribution(m, n) == [counted[u] for u in range(m * n + 1)]


def test_p_is_the_share_of_orders_at_least_as_far_from_the_middle() -> None:
    rng = random.Random(3)
    for _ in range(20):
        values = rng.sample(range(1000), 9)
        a, b = values[:4], values[4:]
        u = sum(y > x for x in a for y in b)
        splits = list(itertools.combinations(values, 4))
        far = 0
        for ours in splits:
            other = sum(y > x for x in ours for y in values if y not in ours)
            far += abs(other - 10) >= abs(u - 10)
        assert mann_whitney(a, b) == pytest.approx(far / len(splits)) == pytest.approx(mann_whitney(b, a))
    assert mann_whitney([5.0] * 6, [5.0] * 6) == 1.0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 101, 99, 102, 98), (120, 121, 119, 125, 118), "faster"),
        ((120, 121, 119, 125, 118), (100, 101, 99, 102, 98), "slower"),
        ((100, 101, 99, 102), (103, 104, 105, 106), "faster"),  # p = 2 / 70
        ((100, 110, 90, 105, 95), (102, 108, 93, 104, 97), "no difference"),  # noise
        ((100, 110, 90, 105, 95), (100, 110, 90, 105, 95), "no difference"),
        ((100.0, 100.1, 99.9, 100.2, 99.8), (101, 101.1, 100.9, 101.2, 100.8), "no difference"),  # sure, but 1 %
        ((100, 80, 120, 90, 110), (130, 85, 140, 95, 125), "no difference"),  # 25 % more, within the noise
        ((100, 101, 99), (200, 201, 199), "too few rounds"),
        ((100, 101, 99, 100, 98), (200, 201, 199), "too few rounds"),
    ],
)
def test_verdicts(before: tuple[float, ...], after: tuple[float, ...], expected: str) -> None:
    assert verdict(before, after) == expected


def test_noise_alone_rarely_gets_a_verdict() -> None:
    rng = random.Random(1)
    found = Counter(
        verdict([rng.gauss(100, 10) for _ in range(6)], [rng.gauss(100, 10) for _ in range(6)]) for _ in range(1000)
    )
    assert found["no difference"] >= 940


def test_reports_are_compared_contender_by_contender() -> None:
    faster = tuple(1.5 * rate for rate in (100.0, 120.0, 110.0, 99.0, 101.0))
    other = replace(run(faster), figures=(*run(faster).figures[:2], Figures("OpenCV", (9.0,) * 5, 16)))
    a, b = report(run(), run(sampling="consecutive")), report(other, commit="fff9999")
    first, second = compare(a, b)
    assert (first.sampling, first.workers, first.name, first.verdict) == ("segments", 2, "r3d-fast", "faster")
    assert (first.ratio, first.low, first.high) == pytest.approx((1.5, 1.5 * 99 / 120, 1.5 * 120 / 99))
    assert (second.name, second.ratio, second.verdict) == ("decord", 1.0, "no difference")
    assert unmatched(a, b) == [
        "only in A: segments, 2 workers: decode only (ceiling)",
        *(f"only in A: consecutive, 2 workers: {name}" for name in run().names),
        "only in B: segments, 2 workers: OpenCV",
    ]
    text = as_text(a, b)
    assert "B (fff9999) against A (abc1234)" in text
    assert re.search(r"r3d-fast +1\.50 x +\(1\.24 to 1\.82\) +faster", text)
    assert all(line in text for line in unmatched(a, b))
    assert "warning" not in text
    assert "nothing that both measured" in as_text(a, report(replace(run(), workers=7)))


def test_other_machines_and_settings_are_warned_of() -> None:
    assert comparing.warnings(FULL, FULL) == []
    other = report(machine=replace(MACHINE, cpu="Other CPU"), settings={"batch_size": 16, "seed": 1})
    machine, batch, seed = comparing.warnings(report(), other)
    assert "two machines (A: Some CPU, 4 usable; B: Other CPU, 4 usable)" in machine
    assert batch == "measured with two settings of batch_size (A: 8; B: 16)"
    assert seed == "measured with two settings of seed (A: not given; B: 1)"
    assert as_text(report(), other).startswith(f"warning: {machine}\n")


# Printing.


def test_rates_have_the_digits_that_mean_something() -> None:
    assert [as_rate(rate) for rate in (3.14159, 99.94, 99.96, 100.4, 1234.5678)] == [
        "3.1",
        "99.9",
        "100",
        "100",
        "1235",
    ]


def test_the_tables_hold_the_measured_numbers() -> None:
    text = tables([FULL])
    assert "Some CPU, 4 usable CPUs, 16 GiB, no GPU; 2 workers; batch 8; 5 rounds; commit abc1234; `bench" in text
    pairs = [statistics.median(x / y for x, y in zip(part["r3d-fast"].clips_per_second, PEER, strict=True))
             for part in FULL.runs]  # fmt: skip
    assert pairs[0] != pytest.approx(101 / 50)  # else paired and unpaired could not be told apart
    rates, one_worker = (rows for rows in cells(text, "decord") if len(rows) in (4, 6) and "x" in "".join(rows))
    wanted = ["50.0 (40.0 to 60.0)", f"{pairs[0]:.2f} x", "50.0 (40.0 to 60.0)", f"{pairs[1]:.2f} x"]
    assert rates == ["decord", *wanted, "3 of 96 videos differ"]
    assert one_worker == ["decord", *wanted[:2], "3 of 96 videos differ"]
    ours = cells(text, "r3d-fast")
    assert ours[0] == ["r3d-fast", "101 (99.0 to 120)", "", "300 (290 to 310)", "", "identical"]
    assert ours[1] == ["r3d-fast", "20.0", "41", "20.0", "41"]
    assert cells(text, "wall ms a clip")[0] == ["wall ms a clip", "sampling", "read", "decode", "hand-over"]
    assert ours[2] == ["r3d-fast", "segments", "0.25", "5.00", "0.12"]
    assert "Not installed there: torchcodec (`pip install torchcodec`)." in text
    assert "2 clips left out as not readable: 1 empty, 1 truncated." in text
    assert "- first batch seconds: 1.5\n- index, files: 96" in text


def test_every_table_has_rows_of_one_length() -> None:
    odd = replace(run(), figures=(*run().figures[1:], Figures("a|b", (1.0,) * 5, 16)), sampling="consecutive")
    for block in tables([report(run(), odd), report(odd)]).split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    assert cells(tables([report(odd)]), "decord")[0][2] == ""  # no r3d-fast, no ratio


def test_other_kinds_of_results_become_a_plain_table(tmp_path: Path) -> None:
    save(FULL, tmp_path / "b.json")
    values = {"kind": "index build", "files": 96, "parts": [{"n": 1}, {"n": None}], "seconds": [1.25, 2], "e": {}}
    (tmp_path / "a.json").write_text(json.dumps(values), encoding="utf-8")
    found = load_folder(tmp_path)
    assert found == [OtherReport("index build", values), FULL]
    text = tables(found)
    assert text.startswith("index build\n\n| what | value |")
    got = {name: cells(text, name)[0][1] for name in ("files", "parts 1, n", "parts 2, n", "seconds", "e")}
    assert got == {"files": "96", "parts 1, n": "1", "parts 2, n": "null", "seconds": "1.25, 2", "e": "{}"}


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results \(\*\.json\) in it"):
        load_folder(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        load_folder(tmp_path / "none")
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"a\.json: not JSON"):
        load_folder(tmp_path)


def test_the_terminal_table_is_aligned() -> None:
    title, header, *rows = terminal(run()).splitlines()
    assert title.startswith("segments, 2 workers, 5 rounds")
    assert rows.pop() == "r3d-fast, wall ms/clip: read 0.25, decode 5.00, hand-over 0.12"
    parts = [re.split(r" {2,}", line) for line in rows]
    assert parts[0] == ["r3d-fast", "101", "99.0 - 120", "1616", "20.0", "41", "1.00", "identical"]
    assert parts[1] == ["decord", "50.0", "40.0 - 60.0", "800", "50.0", "-", "2.00", "3 of 96 videos differ"]
    assert parts[2][-1] == "0.51"  # 101 / 200
    for name in ("clips/s", "low - high", "frames/s", "CPU ms/clip", "kB/clip", "x"):
        end = header.index(f" {name} ") + len(name)
        assert all(line[end] != " " and line[end + 1 : end + 2] in ("", " ") for line in rows), name
    start = header.index("frames", header.index("kB/clip"))
    assert [line[start:] for line in rows] == ["identical", "3 of 96 videos differ", ""]
    alone = replace(run(), figures=run().figures[1:])
    assert re.split(r" {2,}", terminal(alone).splitlines()[2])[6] == "-"


# Drawing.


def bar_lengths(path: Path) -> dict[str, int]:
    """Pixels of the widest row of each colour."""
    from matplotlib.image import imread

    pixels = np.rint(imread(path)[..., :3] * 255).astype(int)
    colours = {"ours": (0x12, 0x80, 0x5C), "peer": (0xC4, 0xC8, 0xCC)}
    return {name: int((pixels == colour).all(axis=2).sum(axis=1).max()) for name, colour in colours.items()}


def test_the_chart_is_as_wide_as_said_and_its_bars_as_long_as_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    for rate in (100.0, 150.0):
        draw(report(run((rate,) * 5)), path)
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width == 1800
        assert 400 < height < 800
        lengths = bar_lengths(path)
        assert lengths["ours"] / lengths["peer"] == pytest.approx(rate / 50, rel=0.02)
    assert [file.name for file in tmp_path.iterdir()] == ["chart.png"]


def test_the_same_figures_give_the_same_chart_and_others_another(tmp_path: Path) -> None:
    first, again, other = (tmp_path / f"{number}.png" for number in range(3))
    draw(FULL, first)
    draw(FULL, again)
    draw(replace(FULL, runs=(run((100.0, 121.0, 110.0, 99.0, 103.0)), *FULL.runs[1:])), other)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    # Only the first number of workers is drawn: the third run, of another, adds nothing.
    draw(replace(FULL, runs=FULL.runs[:2]), other)
    assert first.read_bytes() == other.read_bytes()
    draw(replace(FULL, runs=FULL.runs[:1]), other)
    heights = [struct.unpack(">I", path.read_bytes()[20:24])[0] for path in (first, other)]
    assert heights[0] > 1.5 * heights[1]


def test_charts_are_drawn_as_svg_too_and_as_nothing_else(tmp_path: Path) -> None:
    draw(report(run(), commit="", settings={}), tmp_path / "chart.SVG")
    assert "<svg" in (tmp_path / "chart.SVG").read_text(encoding="utf-8")
    for name in ("chart.pdf", "chart", "png"):
        with pytest.raises(UsageError, match=r"ends in \.png or \.svg"):
            draw(FULL, tmp_path / name)
    with pytest.raises(UsageError, match="without runs"):
        draw(replace(FULL, runs=()), tmp_path / "x.png")
    with pytest.raises(UsageError, match="can't be written"):
        draw(report(), tmp_path / "none" / "x.png")
    assert [file.name for file in tmp_path.iterdir()] == ["chart.SVG"]


def test_a_missing_matplotlib_is_named(saved: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from bench.chart import draw; from bench.results import load\n"
        "try: draw(load(sys.argv[1]), 'x.png')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True)
    assert done.stdout == f"{EnvironmentProblem.__name__} charts need matplotlib: pip install 'r3d-fast[plots]'\n"


# The README.


@pytest.mark.parametrize(("page", "brief"), [("README.md", True), ("bench/results/README.md", False)])
def test_pages_show_the_committed_results_as_bench_report_prints_them(page: str, brief: bool) -> None:
    root = Path(__file__).resolve().parent.parent
    text = (root / page).read_text(encoding="utf-8")
    shown = text.split("<!-- bench report -->\n", 1)[1].split("<!-- end of bench report -->", 1)[0]
    assert shown == tables(load_folder(root / "bench" / "results"), brief=brief), "put there what `bench report` prints"

from __future__ import annotations

import json
import re
import statistics
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reports import FULL, PEER, cells, report, run

from bench.reporting.chart import draw
from bench.reporting.figures import Figures
from bench.reporting.results import StudyReport, save
from bench.reporting.tables import load_folder, tables
from bench.reporting.terminal import run_table
from bench.reporting.text import as_rate
from pipelines.errors import UsageError

# Printing.


def test_rates_have_the_digits_that_mean_something() -> None:
    assert [as_rate(rate) for rate in (0.8251, 3.14159, 9.994, 9.996, 99.94, 99.96, 100.4, 1234.5678)] == [
        "0.83",
        "3.14",
        "9.99",
        "10.0",
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
    assert found == [StudyReport("index build", values), FULL]
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
    title, header, *rows = run_table(run()).splitlines()
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
    assert re.split(r" {2,}", run_table(alone).splitlines()[2])[6] == "-"


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


# The pages.


@pytest.mark.parametrize(("page", "brief"), [("docs/speed.md", True), ("bench/results/README.md", False)])
def test_pages_show_the_committed_results_as_bench_report_prints_them(page: str, brief: bool) -> None:
    root = Path(__file__).resolve().parents[3]
    text = (root / page).read_text(encoding="utf-8")
    shown = text.split("<!-- bench report -->\n", 1)[1].split("<!-- end of bench report -->", 1)[0]
    assert shown == tables(load_folder(root / "bench" / "results"), brief=brief), "run `make docs`"

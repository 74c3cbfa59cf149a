from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from pipelines.output.csv_table import csv_rows, csv_text, harmless


@pytest.mark.parametrize("cell", ["=1+1", "+1-1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "-x.avi", "=cmd|' /C calc'!A0"])
def test_a_text_that_could_be_a_formula_is_made_text(cell: str) -> None:
    assert harmless(cell) == "'" + cell.replace("\t", "\\t").replace("\r", "\\r")


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-1e-05", "-.5", -2, -0.25, None, "", "a=b", "v_-x.avi", "'quoted"])
def test_numbers_and_other_texts_stay(cell: object) -> None:
    assert harmless(cell) == cell


def test_rows_are_whole_whatever_is_in_a_name() -> None:
    rows = [["a,b", 'say "x"', "two\nlines", "\x1b[31m"], ["=1", 2, -3.5, None]]
    read = list(csv.reader(io.StringIO(csv_text(rows))))
    assert read == [["a,b", 'say "x"', "two\nlines", r"\x1b[31m"], ["'=1", "2", "-3.5", ""]]
    assert csv_text([["a", 1]], "\r\n") == "a,1\r\n"


def test_rows_are_written_one_by_one_also_names_that_are_not_utf_8(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as file, csv_rows(file, ["name", "=n"]) as write:
        write(["\udcff.avi", 1])
    assert (tmp_path / "t.csv").read_text() == "name,'=n\n\\xff.avi,1\n"

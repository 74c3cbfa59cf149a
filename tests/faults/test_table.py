"""FAULTS.md has each row once, and names tests that exist and run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).parent / "FAULTS.md"
WANTED = [*(f"B{number:02}" for number in range(1, 44)), *(f"R{number:02}" for number in range(1, 34))]

# The reasons for which `skipif` may leave out a test of the table. Without a GPU, real clips or a browser the fixtures
# of these leave out tests, which R3D_REQUIRE_GPU=1 and the like make failures.
REASONS = ("this machine has a GPU", "the GPU build says first which libraries it lacks")


class Row(NamedTuple):
    """A row of the table: the fault, what happens, and the tests, each as path::name."""

    row: str
    fault: str
    happens: str
    tests: tuple[str, ...]


def rows() -> list[Row]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if re.match(r"\| [BR]\d", line)]
    found = []
    for line in lines:
        row, fault, happens, tests = (cell.strip() for cell in line.strip("|").split(" | "))
        found.append(Row(row, fault, happens, tuple(re.findall(r"`(tests/[^`]+)`", tests))))
    return found


@cache
def _statements(file: str) -> list[ast.stmt]:
    return ast.parse((REPO / file).read_text(encoding="utf-8")).body


def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The test functions of `file` that pytest collects, by name."""
    found = [node for node in _statements(file) if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in found if node.name.startswith("test_")}


def marks(file: str, name: str) -> list[str]:
    """The marks of a test, as they are written; where the module keeps one under a name, what it is."""
    named = {
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in _statements(file)
        if isinstance(node, ast.Assign)
    }
    written = map(ast.unparse, functions(file)[name].decorator_list)
    return [named.get(mark, mark) for mark in (*written, "pytestmark")]


def test_every_row_is_there_once() -> None:
    found = rows()
    assert [row.row for row in found] == WANTED
    assert all(row.fault and row.happens and row.tests for row in found)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.row)
def test_the_tests_of_a_row_exist_and_are_run(row: Row) -> None:
    for test in row.tests:
        file, _, name = test.partition("::")
        assert re.fullmatch(r"test_\w+\.py", Path(file).name), f"pytest collects no {file}"
        assert (REPO / file).is_file(), f"no file {file}"
        assert name in functions(file), f"no {name} in {file}"
        assert not _left_out(file, name), f"{test} is left out: {_left_out(file, name)}"
    assert not all("pytest.mark.gpu" in marks(*test.split("::")) for test in row.tests), "tested only on a GPU"


def test_each_test_of_a_fault_stands_in_the_table() -> None:
    named = {test for row in rows() for test in row.tests}
    here = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    files = [path.relative_to(REPO).as_posix() for path in here]
    there = {f"{file}::{name}" for file in files for name in functions(file)}
    assert there == {test for test in named if test.startswith("tests/faults/")}


def _left_out(file: str, name: str) -> str:
    """The mark or statement that leaves out a test for a reason that nobody would take; "" if there is none."""
    for mark in marks(file, name):
        if re.match(r"pytest\.mark\.(skip|xfail)\b", mark):
            return mark
        if "skipif" in mark and not any(reason in mark for reason in REASONS):
            return mark
    body = map(ast.unparse, functions(file)[name].body)
    return next((line for line in body if line.startswith(("pytest.skip(", "pytest.xfail("))), "")

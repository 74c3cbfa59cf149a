from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.machine.memory import fitting_size, usable_memory


def test_without_a_container_it_is_that_of_the_machine(tmp_path: Path) -> None:
    kib = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    assert kib is not None
    assert usable_memory(tmp_path) == pytest.approx(int(kib[1]) * 1024, rel=0.01)
    assert 0 < usable_memory() <= usable_memory(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.max", "1073741824\n", 2**30),
        ("memory.max", "max\n", None),
        ("memory.max", "nonsense", None),
        ("memory.max", f"{2**62}\n", None),  # more than there is
        ("memory/memory.limit_in_bytes", "536870912\n", 2**29),
    ],
)
def test_a_container_is_given_less(tmp_path: Path, name: str, text: str, expected: int | None) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    whole = usable_memory(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert usable_memory(tmp_path) == (expected or whole)


@pytest.mark.parametrize(
    ("size", "most", "tried"), [(8, 8, [4]), (8, 3, [4, 2]), (7, 1, [3, 1]), (4, 0, [2, 1]), (1, 0, [])]
)
def test_the_first_half_that_fits(size: int, most: int, tried: list[int]) -> None:
    sizes: list[int] = []

    def attempt(rows: int) -> None:
        sizes.append(rows)
        if rows > most:
            raise MemoryError

    fits = fitting_size(size, attempt, lambda error: isinstance(error, MemoryError))
    assert (sizes, fits) == (tried, tried[-1] if tried and tried[-1] <= most else 0)


def test_an_error_that_is_not_for_want_of_memory_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        fitting_size(8, lambda rows: rows // 0, lambda error: isinstance(error, MemoryError))

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.machine.memory import (
    FreeMemory,
    fitting_size,
    forget_peak_memory,
    free_memory,
    peak_memory,
    trim_memory,
    usable_memory,
)


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


def test_free_is_what_the_machine_has_left_or_less_in_a_container(tmp_path: Path) -> None:
    machine = free_memory(tmp_path)
    assert machine.limit == "free RAM"
    assert 0 < machine.bytes <= usable_memory(tmp_path)
    for name, text in (
        ("memory.max", f"{300 * 2**20}\n"),
        ("memory.current", f"{250 * 2**20}\n"),
        ("memory.stat", f"anon 5\ninactive_file {100 * 2**20}\nactive_file 7\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert free_memory(tmp_path) == FreeMemory(150 * 2**20, "the container's limit")


def test_limits_of_the_shell_are_known() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_DATA, (2**28, 2**28)); r.setrlimit(r.RLIMIT_AS, (2**33, 2**33))\n"
        "from pipelines.machine.memory import address_limit, free_memory; print(free_memory(), address_limit())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"FreeMemory(bytes={2**28}, limit='ulimit -d') {2**33}\n"


def test_the_peak_begins_again() -> None:
    held = np.ones(64 * 2**20, np.uint8)
    before = peak_memory()
    del held
    trim_memory()
    forget_peak_memory()
    after = peak_memory()
    assert after[0] < before[0] - 32 * 2**20
    assert after[1] == before[1] > before[0]

"""Damaged files are refused, or give an error, or give the frames of a full decode."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from damage.torture import damages, finds, sound_files


def check(folder: Path, count: int) -> Counter[str]:
    fates: Counter[str] = Counter()
    tasks = damages(sound_files(folder), count)
    found = list(finds(tasks, processes=len(os.sched_getaffinity(0)), unsure=fates))
    assert [f"{find.damage}: {find.fault}" for find in found] == []
    assert sum(fates.values()) == count
    return fates


def test_damaged_files_never_give_other_pixels(tmp_path: Path) -> None:
    assert check(tmp_path, 60)["read"] > 10


@pytest.mark.slow
def test_two_thousand_damaged_files_never_give_other_pixels(tmp_path: Path) -> None:
    fates = check(tmp_path, 2000)
    assert fates["read"] > 400
    assert fates["truth varies"] < 100

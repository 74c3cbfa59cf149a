"""A short form of `make fuzz`: a minute of damaged files in folders, through index, loader and prediction."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from damage.fuzz import finds, in_folders, known_mutants, mutants, sources


@pytest.mark.slow
def test_a_minute_of_damaged_files_brings_nothing_down(tmp_path: Path) -> None:
    files = sources(tmp_path)
    fates: Counter[str] = Counter()
    folders = in_folders(mutants(files, 2000, seed=1), files[0])
    assert list(finds(folders, processes=len(os.sched_getaffinity(0)), fates=fates, seconds=60)) == []
    assert fates["read"]
    assert fates["fails"] + fates["refused"]


def test_what_failed_once_is_right_now(tmp_path: Path) -> None:
    files = sources(tmp_path)
    fates: Counter[str] = Counter()
    drawn = known_mutants(files) + mutants(files, 5, seed=2)
    assert list(finds(in_folders(drawn, files[0]), processes=1, fates=fates)) == []
    assert fates.total() == len(drawn)

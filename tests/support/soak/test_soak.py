"""Short forms of `make soak`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny

from soak.loader_soak import soak_loader
from soak.training_soak import soak_training
from soak.usage import Usage


def test_batches_are_the_same_bit_for_bit_while_processes_are_killed(tmp_path: Path) -> None:
    told: list[str] = []
    found = soak_loader(tiny.make_tiny(tmp_path), 800, seed=2, every=8, say=told.append)
    assert found.clips >= 800
    assert found.kills > 3
    assert found.different == 0
    assert len(told) == len(found.usage.done)
    # The calm loader has none, the other has two processes, and pipes and memory of them.
    assert max(found.usage.files) - min(found.usage.files) < 30


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    found = soak_training(tiny.make_tiny(tmp_path), tmp_path, 60, seed=1, every=15, say=lambda line: None)
    assert found.kills > 1
    assert found.difference == ""


def test_growth_is_that_of_the_second_half() -> None:
    usage = Usage(list(range(0, 8000, 1000)), [100.0, 400, 500, 500, 502, 504, 506, 508], [9] * 8)
    assert usage.growth(1000) == pytest.approx(2.0)
    assert Usage([0, 1, 2], [1.0, 2.0, 3.0], [1, 1, 1]).growth(1000) == 0.0


def test_usage_is_that_of_all_processes_that_live() -> None:
    usage = Usage()
    usage.note(0, [os.getpid()])
    with Path(__file__).open():
        usage.note(1, [os.getpid(), 2**22 + 1])
    assert usage.memory[0] > 10
    assert usage.files[1] == usage.files[0] + 1

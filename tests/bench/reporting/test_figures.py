"""The figures of a contender, from its turns."""

from __future__ import annotations

import pytest

from bench.measuring.turns import Turn
from bench.reporting.figures import figures_of


def test_bytes_a_clip_are_of_all_turns_together() -> None:
    """In a short turn nothing may be read: its clips were made ahead, in the turn before."""
    read = [0, 0, 5000, 0, 3000]
    turns = [Turn(clips=4, seconds=2.0, cpu_seconds=1.0, costs={"bytes_read": value}) for value in read]
    figures = figures_of("a", turns, frames_per_clip=16)
    assert figures.bytes_per_clip == pytest.approx(8000 / 20)
    assert (figures.median, figures.cpu_ms) == (2.0, 250.0)
    assert figures_of("a", [Turn(4, 2.0, 1.0, {})], frames_per_clip=16).bytes_per_clip is None

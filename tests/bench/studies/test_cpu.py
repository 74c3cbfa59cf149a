from __future__ import annotations

from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from bench.studies.cpu import OURS, PLAIN, TORCH, main, measure


@pytest.mark.slow
def test_every_contender_takes_its_turn_and_ours_gives_what_plain_paddle_gives() -> None:
    result = measure("eval", rounds=2, threads=1)
    names = [PLAIN, OURS, *([TORCH] if find_spec("torch") else [])]
    assert [name for name in (PLAIN, OURS, TORCH) if name in result] == names
    assert all(len(result[name]["seconds"]) == 2 for name in names)
    assert result[PLAIN]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert 0 < result["difference"] < 0.08  # the same values, not the same path


def test_too_few_rounds_are_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["--rounds", "1"])
    assert done.exit_code == 2
    assert "rounds" in done.output

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measuring import fresh_python
from bench.reporting.results import StudyReport
from bench.studies import cpu
from bench.studies.cpu import measure_mode, summary
from bench.studies.cpu_contender import FAST, PLAIN
from pipelines.errors import EnvironmentProblem


def test_figures_are_ratios_of_each_round_to_plain_paddle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures by hand stand in for minutes of measurement."""
    taken = {PLAIN: [4.0, 8.0, 2.0], FAST: [2.0, 2.0, 2.0]}
    monkeypatch.setattr(cpu, "measure_mode", lambda mode, **_: (taken, 1e-6))
    report = cpu.measure_cpu(["train"], rounds=3, threads=2, command="bench studies cpu")
    assert report.kind == report.values["kind"] == "training and evaluation on the CPU"
    assert (report.values["command"], report.values["threads"]) == ("bench studies cpu", 2)
    assert report.values["train, r3d-fast"] == {
        "clips/s": 4.0, "x plain Paddle, median, low, high": [2.0, 1.0, 4.0], "seconds a step": [2.0, 2.0, 2.0],
    }  # fmt: skip
    assert summary(report).splitlines() == [
        "train  paddle      2.00 clips/s   1.00 x plain Paddle (1.00 to 1.00)",
        "train  r3d-fast    4.00 clips/s   2.00 x plain Paddle (1.00 to 4.00)",
    ]
    assert summary(StudyReport("none", {})) == ""


def test_a_contender_that_ends_early_is_named_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such kernel')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cpu, "python_command", lambda *_: fresh_python.python_command("broken"))
    with pytest.raises(EnvironmentProblem, match="paddle ended early: RuntimeError: no such kernel"):
        measure_mode("eval", rounds=1, threads=1)

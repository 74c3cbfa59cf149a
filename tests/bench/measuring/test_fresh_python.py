from __future__ import annotations

from pathlib import Path

import pytest

from bench.measuring.fresh_python import last_line, output_of, python_environment
from pipelines.errors import EnvironmentProblem


def test_a_module_runs_with_the_import_path_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting.py").write_text("import sys\nprint(sys.argv[1].upper(), end='')")
    monkeypatch.syspath_prepend(tmp_path)
    assert output_of("shouting", "quiet") == "QUIET"
    assert python_environment(SOME="value")["SOME"] == "value"


def test_a_module_that_fails_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text("raise RuntimeError('no such thing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentProblem, match="failing ended with code 1: RuntimeError: no such thing"):
        output_of("failing")
    assert last_line("one\ntwo\n\n") == "two"
    assert last_line("") == "it said nothing"

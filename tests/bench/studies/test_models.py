from __future__ import annotations

from pathlib import Path

import pytest

from bench.reporting.results import load_any, save, study_report
from bench.reporting.tables import tables
from bench.studies.models import PUBLISHED, measure_model, measure_models, stored_results, table
from pipelines.errors import EnvironmentProblem, UsageError
from r3d_fast.models.architectures import MODELS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def test_the_page_of_models_has_the_table_as_it_is_now() -> None:
    assert table(stored_results()) in PAGE.read_text(encoding="utf-8"), "run `make docs`"


def test_published_accuracies_are_of_models_that_are_here() -> None:
    assert set(PUBLISHED) <= set(MODELS)


@pytest.mark.parametrize("name", ["r3d10", "densenet121"])
def test_a_model_is_measured_and_reported(name: str, tmp_path: Path) -> None:
    result = measure_model(name, rounds=2, clip=(3, 8, 32, 32), width=8)
    assert len(result["seconds a batch"]) == 2
    assert 0 < result["low"] <= result["clips/s"] <= result["high"]
    assert 0 <= result["difference of the logits"] < 1e-4
    file = tmp_path / "models.json"
    save(study_report("models", "bench studies models", {name: result}), file)
    assert f"| {name}, clips/s |" in tables([load_any(file)])


def test_a_graph_that_computes_something_else_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.acceleration.cpu.traced", lambda model: lambda clips: model(clips) + 1.0)
    with pytest.raises(EnvironmentProblem, match="r3d10: the graph's logits differ by"):
        measure_model("r3d10", rounds=2, clip=(3, 8, 32, 32), width=8)


def test_measured_rates_stand_in_the_table() -> None:
    lines = table({"r3d18": {"clips/s": 12.345}}).splitlines()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in lines[2:]}
    assert [rows[f"`{name}`"][-2] for name in ("r3d10", "r3d18")] == ["-", "12.3"]
    assert [rows[f"`{name}`"][5] for name in ("r3d10", "r3d18")] == ["-", "84.4"]


def test_an_unknown_model_is_refused_before_any_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said: list[str] = []
    with pytest.raises(UsageError, match=r"no model 'r3d81'; expected one of: r3d18_reference, "):
        measure_models(["r3d10", "r3d81"], rounds=5, threads=1, command="", say=said.append)
    assert said == []

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_files

from r3d_fast.report.run_charts import charts_together, run_charts
from r3d_fast.report.standing import Standing, misfit, standing
from r3d_fast.runs.history import RunHistory, read_history

EVALUATION = {"kind": "eval", "epoch": 1, "step": 9, "top1": 0.5, "top5": 1.0, "loss": 0.7, "count": 10}


def test_a_run_stands_as_its_best_evaluation_says(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", ["cat", "dog"], videos=100, epochs=2)
    found, figures = standing(read_history(run)), read_history(run).figures["video"]
    assert (found.epoch, found.step, found.videos) == (2, 40, 100)
    assert (found.top1, found.balanced_accuracy, found.macro_f1) == tuple(
        figures[key] for key in ("top1", "balanced_accuracy", "macro_f1")
    )
    assert found.largest == max(figures["counts"], key=lambda name: figures["counts"][name])
    assert found.majority == max(figures["counts"].values()) / 100
    assert found.verdict().startswith(
        f"The best model after epoch 2 is right about {100 * figures['top1']:.1f}\xa0% of"
    )


def test_without_its_evaluation_a_run_stands_as_its_metrics_say() -> None:
    found = standing(RunHistory(Path("run"), ({**EVALUATION, "top1": 0.25}, EVALUATION, {**EVALUATION, "top1": None})))
    assert (found.top1, found.majority, found.videos) == (0.5, None, 10)
    assert "(95 % confidence: 23.7\xa0% to 76.3\xa0%)." in found.verdict()
    assert standing(RunHistory(Path("run"))).verdict() == "This run has not been evaluated yet."


@pytest.mark.parametrize(("top1", "certain"), [(0.9, True), (0.61, False), (0.5, False)])
def test_a_model_that_may_be_no_better_than_the_largest_class_is_called_so(top1: float, certain: bool) -> None:
    video = {"top1": top1, "count": 30, "majority": 0.6, "counts": {"a": 18, "b": 12}}
    found = standing(RunHistory(Path("run"), figures={"video": video}))
    text = found.verdict()
    assert "Always saying their largest class, a, would be right about 60.0\xa0%." in text
    assert ("not certain that the model has learnt" not in text) == certain


def test_a_model_that_says_one_class_of_every_video_is_called_so() -> None:
    video = {
        "top1": 0.6,
        "count": 30,
        "majority": 0.6,
        "counts": {"a": 18, "b": 12},
        "precision": {"a": 0.6, "b": None},
    }
    found = standing(RunHistory(Path("run"), figures={"video": video}))
    assert found.verdict().endswith("This model says a of every video: it has not learnt to tell the classes apart.")


@pytest.mark.parametrize(
    "video",
    [None, [], {"top1": "x"}, {"top1": 2}, {"top1": float("nan")}, {"top1": 0.5, "count": float("nan")},
     {"top1": 0.5, "count": -3, "counts": [1]}, {"top1": 0.5, "count": 10**400}, {"top1": True, "count": True},
     {"top1": 0.5, "count": 5, "loss": "x", "majority": [], "counts": {"a": "b"}}],
)  # fmt: skip
def test_damaged_figures_are_left_out(video: Any) -> None:
    found = standing(RunHistory(Path("run"), (EVALUATION,), figures={"video": video, "epoch": "x"}))
    assert isinstance(found, Standing)
    assert found.verdict()
    assert found.top1 in (0.5, 1.0)


def test_figures_of_another_step_are_said_to_be_such(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", ["cat", "dog"], epochs=3)
    assert misfit(read_history(run)) is None
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["epoch"] < 3))  # as cut back by a resumed run
    text = misfit(read_history(run))
    assert text is not None
    assert text.startswith("evaluation/ is of step 60, but the best evaluation in metrics.jsonl is that of step 40")


def test_a_run_of_an_older_version_may_have_kept_the_first_of_equal_top1() -> None:
    records = (EVALUATION, {**EVALUATION, "epoch": 2, "step": 18, "loss": 0.5})
    figures = {"step": 9, "epoch": 1, "video": {"top1": 0.5, "count": 10}}
    assert misfit(RunHistory(Path("run"), records, figures=figures)) is None
    assert misfit(RunHistory(Path("run"), (*records, {**records[1], "step": 27, "top1": 0.6}), figures=figures))


TRAINED_ON = "of 10 videos of split train, on which it was trained too"


@pytest.mark.parametrize(
    ("data", "split", "said"),
    [
        ({"train_split": "train", "eval_split": "test"}, "test", "of 10 held-out videos (split test)"),
        ({"train_split": "train", "eval_split": "test"}, "val", "of 10 held-out videos (split val)"),
        (
            {"train_split": "train", "eval_split": "train"},
            None,
            "of 10 videos of split train, on which it was trained too",
        ),
        ({}, None, "of 10 held-out videos"),
    ],
)
def test_the_videos_are_called_what_they_are(data: Any, split: str | None, said: str) -> None:
    figures = {"split": split, "video": {"top1": 0.5, "count": 10}} if split else {}
    history = RunHistory(Path("run"), (EVALUATION,), config={"data": data}, figures=figures)
    text = standing(history).verdict()
    assert f" {said} (95 % confidence" in text
    is_trained_on = said == TRAINED_ON
    assert text.endswith("How well it does on other videos is not known.") == is_trained_on
    (alone, _, *_) = run_charts(history, None)
    assert [curve.name for curve in alone.curves][1] == (
        "evaluated on train, trained on too" if is_trained_on else "held-out videos"
    )
    (together, *_) = charts_together([("a", history)])
    assert ("trained on" in together.curves[0].name) == is_trained_on

from __future__ import annotations

import re
from pathlib import Path

import clips
import pytest
import tiny

from bench.reporting.figures import spread
from bench.reporting.results import StudyReport
from bench.studies.predict import PARTS, measure_prediction, summary
from pipelines.errors import DataError


def measure(data: Path, model: Path, rounds: int = 1) -> StudyReport:
    return measure_prediction(
        data, config="demo", model=model, rounds=rounds, command="bench studies predict", say=lambda _: None
    )


def test_every_part_is_measured_and_the_ceiling_is_of_both(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(5):
        clips.write_stamped_video(tmp_path / "videos" / f"{number}.avi", num_frames=20)
    report = measure(tmp_path / "videos", tiny.untrained(tmp_path / "run"), rounds=2)
    values = report.values
    rates = {part: values[f"{part}, clips/s a round"] for part in PARTS}
    assert {part: len(own) for part, own in rates.items()} == dict.fromkeys(PARTS, 2)
    for decode, computed, ceiling in zip(rates["decode"], rates["model"], rates["ceiling"], strict=True):
        assert ceiling == pytest.approx(decode * computed / (decode + computed), rel=0.01)
    share, low, high = values["predict / ceiling, median, low, high"]
    assert low <= share <= high
    assert (values["videos"], values["data"], values["command"]) == (5, "videos", "bench studies predict")
    lines = summary(report).splitlines()
    assert [line.split()[0] for line in lines[:4]] == list(PARTS)
    assert lines[2].startswith(f"predict  {spread(rates['predict'])[0]:7.2f} clips/s (")
    assert lines[4] == f"predict / ceiling: {share:.3f} ({low:.3f} to {high:.3f}), 2 rounds"
    assert re.fullmatch(r"opened in \d+\.\d s, first call \d+\.\d s", lines[5])


def test_a_bad_video_ends_it(tmp_path: Path) -> None:
    (tmp_path / "bad.avi").write_text("no video")
    with pytest.raises(DataError, match="expected videos that can all be read"):
        measure(tmp_path, tiny.untrained(tmp_path / "run"))

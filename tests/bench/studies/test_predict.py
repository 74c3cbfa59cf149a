from __future__ import annotations

from pathlib import Path

import clips
import pytest
import tiny

from bench.studies.predict import as_report, measure
from pipelines.errors import DataError


def test_every_part_is_measured_and_the_ceiling_is_of_both(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(5):
        clips.write_stamped_video(tmp_path / "videos" / f"{number}.avi", num_frames=20)
    model = tiny.untrained(tmp_path / "run")
    result = measure(tmp_path / "videos", config="demo", model=model, rounds=2)
    rates = result["clips_per_second"]
    assert {name: len(values) for name, values in rates.items()} == dict.fromkeys(rates, 2)
    for decode, computed, ceiling in zip(rates["decode"], rates["model"], rates["ceiling"], strict=True):
        assert ceiling == pytest.approx(decode * computed / (decode + computed))
    assert result["ratio"]["low"] <= result["ratio"]["median"] <= result["ratio"]["high"]
    assert as_report(result, "demo")["videos"] == 5


def test_a_bad_video_ends_it(tmp_path: Path) -> None:
    (tmp_path / "bad.avi").write_text("no video")
    with pytest.raises(DataError, match="expected videos that can all be read"):
        measure(tmp_path, config="demo", model=tiny.untrained(tmp_path / "run"), rounds=1)

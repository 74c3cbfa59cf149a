from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import clips

from pipelines.checks.check import Trouble
from pipelines.checks.index_check import check_index
from pipelines.checks.quarantine import quarantine
from pipelines.index.known_bad import KnownBad
from pipelines.index.video_index import VideoIndex


def test_what_is_proven_and_what_is_too_damaged_is_entered(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / "data" / "x").mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(tmp_path / "data/x" / f"{name}.avi", num_frames=6)
    index = VideoIndex.build(tmp_path / "data", workers=0)
    check = replace(
        check_index(index),
        corrupt={"x/a.avi": 4, "x/b.avi": 3},
        frames={"x/a.avi": 6, "x/b.avi": 6},
        proven=(Trouble("x/c.avi", "does not decode", "after frame 2"), Trouble("x/gone.avi", "does not decode")),
    )
    entries = quarantine(index, check, 0.5)
    assert [(entry.path, entry.reason, entry.detail) for entry in entries] == [
        ("x/a.avi", "too many damaged frames", "4 of 6 frames"),
        ("x/c.avi", "does not decode", "after frame 2"),
    ]
    assert KnownBad(index.path).entries() == entries
    again = VideoIndex.open(index.path)
    assert [again.names()[number] for number in again.known_bad] == ["x/a.avi", "x/c.avi"]
    assert check_index(again).quarantined == {
        "x/a.avi": "too many damaged frames: 4 of 6 frames",
        "x/c.avi": "does not decode: after frame 2",
    }
    assert quarantine(index, replace(check, proven=()), 1.0) == []
    assert KnownBad(index.path).entries() == entries

"""Videos with too many damaged frames, in training and in evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from damage.mostly_damaged import write_mostly_damaged
from runs import records

from pipelines.errors import DataError
from pipelines.index.video_index import VideoIndex
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.training.train import train


def test_a_video_with_too_many_damaged_frames_counts_as_unreadable_unless_the_config_takes_it(
    index: VideoIndex, tmp_path: Path
) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    bad, other = (sorted((tmp_path / "data" / split).rglob("*.avi"))[0] for split in ("train", "test"))
    counts = "{} of {}".format(*write_mostly_damaged(bad))
    shutil.copy(bad, other)
    data = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0, max_corrupt_fraction=1.0)
    assert len(data) == len(index)
    short = ("train.epochs=1", "schedule.warmup_epochs=0")
    said = f"{bad}: quarantined: too many damaged frames: {counts}"
    with pytest.raises(DataError, match=r"1 of 24 training videos can't be read, more than data\.max_bad") as caught:
        train(tiny.tiny_config(data, *short), run=tmp_path / "stopped")
    assert said in str(caught.value)
    for name, more, count in (("left", "data.max_bad_fraction=0.1", 1), ("taken", "data.max_corrupt_fraction=1", 0)):
        config = tiny.tiny_config(data, *short, more)
        train(config, run=tmp_path / name)
        assert sum(record["count"] for record in records(tmp_path / name, "train")) == 24 - count
        evaluation, _ = evaluate(tmp_path / name, config)
        assert evaluation.video["count"] == 16 - count

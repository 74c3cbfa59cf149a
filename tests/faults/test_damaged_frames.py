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
from pipelines.video.probe import probe_video
from pipelines.video.proof import decode_fully
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


def write_hidden_damage(path: Path) -> None:
    """Damage a picture of an MPEG-4 AVI so that its decoder marks a frame, and no header shows it."""
    sound = path.read_bytes()
    for at in range(sound.find(b"movi") + 400, sound.rfind(b"idx1"), 20):
        path.write_bytes(sound[:at] + b"damage" + sound[at + 6 :])
        if probe_video(path).corrupt < 0 and decode_fully(str(path)).corrupt:
            return
    raise AssertionError("no such damage")


def test_a_strict_limit_holds_for_videos_whose_headers_told_enough(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    bad = sorted((tmp_path / "data" / "train").rglob("*.avi"))[0]
    write_hidden_damage(bad)
    indexed = VideoIndex.build(tmp_path / "data", workers=0)
    assert (len(indexed), indexed.never_decoded()) == (len(index), len(index))
    strict = tiny.tiny_config(indexed, "data.max_corrupt_fraction=0", "train.epochs=1", "schedule.warmup_epochs=0")
    with pytest.raises(DataError, match=r"40 of 40 videos in .* were indexed by") as caught:
        train(strict, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert tiny.said(capsys, *str(caught.value).rpartition("r3d-fast ")[2].split())[0] == 0
    again = VideoIndex.open(indexed.path)
    assert (again.never_decoded(), [item.path for item in again.quarantined]) == (0, [str(bad.relative_to(again.root))])
    assert train(strict, run=tmp_path / "run").steps > 0

"""Training that leaves no video out, with loader.last_batch spread: also stopped, on ranks, and accumulating."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ranks
import tiny
from runs import assert_same, cut, each_checkpoint, last_checkpoint, records

from pipelines.index.video_index import VideoIndex
from r3d_fast import train

SPREAD = ("loader.last_batch=spread", "train.checkpoint_every_steps=1", "train.eval_every_epochs=3")


def test_a_data_set_smaller_than_a_batch_trains_on_all_of_it(index: VideoIndex, tmp_path: Path) -> None:
    result = train(tiny.tiny_config(index, *SPREAD, "loader.batch_size=64"), run=tmp_path / "run")
    assert result.steps == 3
    assert [record["count"] for record in records(tmp_path / "run", "train")] == [24] * 3


def test_every_epoch_trains_on_every_video_and_goes_on_to_the_same_bits(index: VideoIndex, tmp_path: Path) -> None:
    more = ("loader.batch_size=7", "train.accumulate=3", "model.dropout=0.3", "train.keep_checkpoints=9")
    config = tiny.tiny_config(index, *SPREAD, *more)
    seen: list[int] = []
    with each_checkpoint():
        train(config, run=tmp_path / "whole", on_batch=lambda batch: seen.extend(batch.video_ids.tolist()))
    epochs = [seen[start : start + 24] for start in range(0, len(seen), 24)]
    assert [len(set(epoch)) for epoch in epochs] == [24] * 3
    assert [record["count"] for record in records(tmp_path / "whole", "train")] == [18, 6] * 3
    cut(tmp_path / "whole", tmp_path / "cut", 3)  # in the middle of the second epoch
    with each_checkpoint():
        train(config, run=tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_ranks_share_batches_of_an_odd_number_of_clips(index: VideoIndex, tmp_path: Path) -> None:
    """16 videos in batches of 6, 5 and 5: the first rank has a clip more than the second in two of them."""
    more = (*SPREAD, "data.train_split=test", "train.epochs=2")
    done = ranks.train(index, tmp_path / "two", 2, *more)
    assert done.returncode == 0, done.stderr
    alone = tiny.tiny_config(index, *more)
    with each_checkpoint():
        train(alone, run=tmp_path / "one")
    both = [records(tmp_path / name, "train") for name in ("one", "two")]
    assert [[record["count"] for record in run] for run in both] == [[6, 5, 5] * 2] * 2
    # The first step has the same weights: its loss differs by batch norm alone, which sees the clips of one rank.
    assert both[1][0]["loss"] == pytest.approx(both[0][0]["loss"], rel=0.2)
    assert all(np.isfinite(array).all() for array in last_checkpoint(tmp_path / "two").weights.values())

"""Training on classes of different sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from runs import assert_same, cut, each_checkpoint, last_checkpoint

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast import train


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The tiny data set with 3 training videos in four of its classes, and 1 in the others: 16 in all."""
    folder = tmp_path_factory.mktemp("uneven")
    index = tiny.make_tiny(folder)
    for name in index.classes[4:]:
        for path in sorted((folder / "data" / "train" / name).iterdir())[1:]:
            path.unlink()
    return VideoIndex.build(folder / "data", index=index.path, workers=0)


def options(balance: str) -> tuple[str, ...]:
    saved = ("train.checkpoint_every_steps=1", "train.keep_checkpoints=100", "train.eval_every_epochs=2")
    return (f"data.balance={balance}", "loader.batch_size=8", "train.epochs=2", *saved)


def test_sampling_shows_each_class_equally_often_and_goes_on_to_the_same_bits(
    uneven: VideoIndex, tmp_path: Path
) -> None:
    seen: list[np.ndarray] = []

    def note(batch: Batch) -> None:
        seen.append(batch.labels)

    config = tiny.tiny_config(uneven, *options("sampling"))
    with each_checkpoint():
        train(config, run=tmp_path / "whole", on_batch=note)
    assert [np.bincount(epoch).tolist() for epoch in np.concatenate(seen).reshape(2, -1)] == [[2] * 8] * 2
    cut(tmp_path / "whole", tmp_path / "cut", 3)
    train(config, run=tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_the_weighted_loss_learns_something_else_and_can_t_be_chosen_on_the_way(
    uneven: VideoIndex, tmp_path: Path
) -> None:
    for balance in ("none", "loss"):
        train(tiny.tiny_config(uneven, *options(balance)), run=tmp_path / balance)
    plain, weighted = (last_checkpoint(tmp_path / name).weights["head.fc.weight"] for name in ("none", "loss"))
    assert not np.array_equal(plain, weighted)
    with pytest.raises(UsageError, match=r'data\.balance: "none" -> "loss"'):
        train(tiny.tiny_config(uneven, *options("loss")), run=tmp_path / "none", resume=True)

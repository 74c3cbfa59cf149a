from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from loading import (
    CLIP,
    SMALL,
    assert_parity,
    children,
    content,
    make,
    pixels,
)

from pipelines.errors import DataError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import ClipSpec, LoaderSpec, ShardSpec

# Epochs and positions


def test_iterating_again_gives_the_next_epoch(index: VideoIndex) -> None:
    with make(index) as loader:
        epochs = [list(loader) for _ in range(3)]
        for number, batches in enumerate(epochs):
            assert {batch.epoch for batch in batches} == {number}
            assert [batch.position for batch in batches] == [3, 6, 9, 12]
            assert sorted(i for batch in batches for i in batch.video_ids) == list(range(12))
            assert [int(i) for batch in batches for i in batch.video_ids] == loader.sampler.order(number).tolist()
    orders = {tuple(int(i) for batch in batches for i in batch.video_ids) for batches in epochs}
    assert len(orders) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_epoch_starts_anywhere_forwards_and_backwards(index: VideoIndex, workers: int) -> None:
    with make(index) as loader:
        full = {number: content(list(loader.epoch(number))) for number in (0, 1, 2)}
    with make(index, workers=workers) as loader:
        assert content(list(loader.epoch(1, 6))) == full[1][2:]
        assert content(list(loader.epoch(2))) == full[2]  # without a stop in between
        assert content(list(loader.epoch(0, 3))) == full[0][1:]
        assert content([next(loader.epoch(1))]) == full[1][:1]  # left in its middle
        assert content(list(loader.epoch(1, 9))) == full[1][3:]
        assert list(loader.epoch(1, 12)) == []


def test_two_epochs_side_by_side(index: VideoIndex) -> None:
    with make(index) as loader:
        full = [content(list(loader.epoch(number))) for number in (0, 1)]
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
        assert [content([pair[k] for pair in pairs]) for k in (0, 1)] == full


def test_resume_at_the_position_of_a_batch(index: VideoIndex) -> None:
    with make(index) as loader:
        full = content(list(loader.epoch(5)))
    for k in range(3):
        with make(index) as loader:
            assert content(list(loader.epoch(5, position=full[k][5]))) == full[k + 1 :]


@pytest.mark.parametrize("position", [1, 4, -3, 15])
def test_position_where_no_batch_starts_is_an_error(index: VideoIndex, position: int) -> None:
    with (
        make(index) as loader,
        pytest.raises(
            UsageError,
            match=rf"^position {position} is not where a batch of 3 clips starts in an epoch of 4 batches; expected "
            "the position of a batch of the same batch size and number of shards$",
        ),
    ):
        loader.epoch(0, position)


# Repeats


@pytest.mark.parametrize("workers", [0, 2])
def test_repeats_give_each_video_so_often_in_successive_batches(index: VideoIndex, workers: int) -> None:
    with make(index, workers=workers, repeats=3) as loader:
        assert len(loader) == 12
        batches = list(loader)
        following = list(loader)
        plans = [plan for number in range(12) for plan in loader.sampler.batch(0, number, 3)]
        order = loader.sampler.order(0).tolist()
    assert [batch.position for batch in batches] == [3 * k for k in range(1, 13)]
    for first in range(0, 12, 3):
        seen = [batch.video_ids.tolist() for batch in batches[first : first + 3]]
        assert seen == [order[first : first + 3]] * 3
    assert [plan.video_id for plan in plans] == [int(i) for batch in batches for i in batch.video_ids]
    draws = [(plan.video_id, plan.frames.tolist(), plan.box, plan.mirror) for plan in plans]
    assert len({str(draw) for draw in draws}) == 36  # frames and crops of their own
    assert [b.video_ids.tolist() for b in following[:3]] != [b.video_ids.tolist() for b in batches[:3]]


def test_repeated_clips_are_their_plans_carried_out(index: VideoIndex) -> None:
    with make(index, repeats=2) as loader:
        assert len(assert_parity(index, loader, list(loader), SMALL)) == 24


def test_repeats_decode_less_for_a_clip(index: VideoIndex) -> None:
    packets = {}
    for repeats in (1, 4):
        with make(index, repeats=repeats) as loader:
            for _ in loader.epoch(0):
                pass
            if repeats == 1:
                list(loader.epoch(0)), list(loader.epoch(0)), list(loader.epoch(0))
            packets[repeats] = loader.statistics.packets
            assert loader.statistics.clips == 48
    assert packets[4] < 0.6 * packets[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_repeats_resume_amid_a_round_and_are_the_same_on_shards(index: VideoIndex, workers: int) -> None:
    with make(index, repeats=2, batch_size=4) as loader:
        full = list(loader.epoch(1))
    assert len(full) == 6
    for start in range(6):
        with make(index, repeats=2, batch_size=4, workers=workers) as loader:
            assert content(list(loader.epoch(1, 4 * start))) == content(full[start:])
    halves = []
    for k in range(2):
        with make(index, repeats=2, batch_size=2, shard=ShardSpec(index=k, count=2)) as loader:
            halves.append(list(loader.epoch(1)))
    for whole, *parts in zip(full, *halves, strict=True):
        together = np.stack([pixels(part) for part in parts], axis=1).reshape(pixels(whole).shape)
        assert np.array_equal(together, pixels(whole))


# No video left out


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("batch_size", "repeats"), [(5, 1), (13, 1), (5, 2)])
def test_spread_gives_every_video_and_real_clips_only(
    index: VideoIndex, workers: int, batch_size: int, repeats: int
) -> None:
    options: dict[str, Any] = {"workers": workers, "batch_size": batch_size, "repeats": repeats}
    with make(index, last_batch="spread", **options) as loader:
        batches = list(loader)
        assert len(assert_parity(index, loader, batches, SMALL)) == 12 * repeats
    assert [len(batch.labels) for batch in batches] == ([4] * 3 * repeats if batch_size == 5 else [12])
    assert all(len(pixels(batch)) == len(batch.labels) and batch.is_real.all() for batch in batches)
    seen = sorted(int(video) for batch in batches for video in batch.video_ids)
    assert seen == sorted([*range(12)] * repeats)


def test_spread_changes_no_clip_but_only_where_batches_end(index: VideoIndex) -> None:
    with make(index, batch_size=5, last_batch="spread") as loader, make(index, batch_size=1) as single:
        together = np.concatenate([pixels(batch) for batch in loader.epoch(3)])
        one_by_one = np.concatenate([pixels(batch) for batch in single.epoch(3)])
    assert np.array_equal(together, one_by_one)


def test_spread_resumes_anywhere_and_is_the_same_on_shards(index: VideoIndex) -> None:
    with make(index, batch_size=8, split="train", last_batch="spread") as loader:
        whole = list(loader.epoch(1))
        for batch, rest in zip(whole, [whole[1:], []], strict=True):
            assert content(list(loader.epoch(1, batch.position))) == content(rest)
        assert [(len(batch.labels), batch.position) for batch in whole] == [(5, 5), (4, 9)]
        with pytest.raises(UsageError, match="position 4 is not where a batch of 8 clips starts"):
            loader.epoch(1, 4)
    halves = []
    for k in range(2):
        spec = ShardSpec(index=k, count=2)
        with make(index, batch_size=4, split="train", last_batch="spread", shard=spec) as loader:
            halves.append(list(loader.epoch(1)))
    assert [[len(batch.labels) for batch in half] for half in halves] == [[3, 2], [2, 2]]
    for one, left, right in zip(whole, *halves, strict=True):
        assert np.array_equal(pixels(one)[0::2], pixels(left))
        assert np.array_equal(pixels(one)[1::2], pixels(right))
        assert (left.position, right.position) == (one.position, one.position)


def test_shards_that_would_get_no_clip_are_refused(index: VideoIndex) -> None:
    text = "^loader.batch_size 1 x 8 shards: loader.last_batch=spread would make batches of 6 of the 12 clips"
    with pytest.raises(UsageError, match=text):
        make(index, batch_size=1, last_batch="spread", shard=ShardSpec(index=0, count=8))


def test_evaluation_ignores_repeats(index: VideoIndex) -> None:
    made = []
    for repeats in (1, 3):
        with make(index, repeats=repeats, train=False) as loader:
            made.append(content(list(loader)))
    assert made[0] == made[1]


# Splits, evaluation, shards


def test_split_decides_whether_to_train(index: VideoIndex) -> None:
    spec = LoaderSpec(batch_size=2, workers=0, threads=1)
    train = ClipLoader(index, clip=CLIP, augment=SMALL, loader=spec)
    test = ClipLoader(index, clip=CLIP, augment=SMALL, loader=spec, split="test")
    assert (len(train), len(test)) == (4, 2)  # 9 videos, the ninth dropped; 3 videos, the fourth row padded
    taken = [int(i) for batch in train for i in batch.video_ids]
    assert {index[i].split for i in taken} == {"train"}
    assert taken != sorted(taken)
    taken = [int(i) for batch in test for i in batch.video_ids[batch.is_real]]
    assert taken == [i for i in range(12) if index[i].split == "test"]
    train.close()
    test.close()


def test_eval_counts_every_video_once_and_pads_the_last_batch(index: VideoIndex) -> None:
    with make(index, workers=2, batch_size=5, train=False) as loader:
        first = list(loader)
        workers = children()
        second = list(loader)
        third = list(loader.epoch(0))
        assert children() == workers  # the same processes go on
    assert children() == []  # at once, not when garbage is collected
    assert [batch.is_real.sum() for batch in first] == [5, 5, 2]
    assert [int(i) for batch in first for i in batch.video_ids[batch.is_real]] == list(range(12))
    assert all(batch.bad == () for batch in first)
    blank = -np.array(SMALL.mean) / np.array(SMALL.std)
    assert np.abs(pixels(first[2])[2:] - blank.reshape(3, 1, 1, 1)).max() < 1e-5
    assert [batch.epoch for batch in second] == [1, 1, 1]
    for again in (second, third):
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(pixels(a), pixels(b))
            assert (a.video_ids.tolist(), a.position) == (b.video_ids.tolist(), b.position)


def test_eval_left_in_its_middle_begins_anew(index: VideoIndex) -> None:
    with make(index, train=False) as loader:
        full = content(list(loader.epoch(0)))
        assert content([next(loader.epoch(0))]) == full[:1]
        assert content(list(loader.epoch(0))) == full
        assert content(list(loader.epoch(0, 6))) == full[2:]
        assert content(list(loader.epoch(0))) == full


def test_views_give_each_video_as_often(index: VideoIndex) -> None:
    clip = ClipSpec(num_frames=8, sampling="consecutive", views=3)
    with make(index, clip=clip, batch_size=7, train=False) as loader:
        batches = list(loader)
        assert_parity(index, loader, batches, SMALL)
    real = [int(i) for batch in batches for i in batch.video_ids[batch.is_real]]
    assert real == [i for i in range(12) for _ in range(3)]
    assert [batch.is_real.sum() for batch in batches] == [7] * 5 + [1]
    rows = np.concatenate([pixels(batch) for batch in batches])
    assert not np.array_equal(rows[9], rows[10])  # 47 frames: other windows
    assert np.array_equal(rows[0], rows[2])  # 5 frames: the same


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_two_shards_together_are_one(index: VideoIndex, train: bool) -> None:
    with make(index, batch_size=4, train=train) as loader:
        one = list(loader.epoch(3))
    parts = []
    for k in range(2):
        with make(index, batch_size=2, train=train, shard=ShardSpec(index=k, count=2)) as loader:
            parts.append(list(loader.epoch(3)))
            assert content(list(loader.epoch(3, 8))) == content(parts[k][2:])
    assert len(parts[0]) == len(parts[1]) == len(one) == 3
    for whole, *halves in zip(one, *parts, strict=True):
        together = np.stack([pixels(half) for half in halves], axis=1).reshape(pixels(whole).shape)
        assert np.array_equal(together, pixels(whole))
        assert np.stack([half.video_ids for half in halves], axis=1).ravel().tolist() == whole.video_ids.tolist()
        assert {half.position for half in halves} == {whole.position}


def test_shards_of_an_evaluation_have_equal_batches(index: VideoIndex) -> None:
    real = []
    for k in range(5):
        with make(index, batch_size=2, train=False, shard=ShardSpec(index=k, count=5)) as loader:
            batches = list(loader)
        assert len(batches) == 2
        real += [int(i) for batch in batches for i in batch.video_ids[batch.is_real]]
    assert sorted(real) == list(range(12))


def test_batch_larger_than_the_split_is_an_error(index: VideoIndex) -> None:
    text = "is more than the {} clips of split {}: training drops incomplete batches; choose a smaller batch_size, or "
    text += "loader.last_batch=spread, which uses every video$"
    with pytest.raises(UsageError, match="^loader.batch_size 13 " + text.format(12, None)):
        make(index, batch_size=13)
    with pytest.raises(UsageError, match="^loader.batch_size 5 x 2 shards " + text.format(9, "'train'")):
        make(index, batch_size=5, split="train", shard=ShardSpec(index=0, count=2))
    assert len(make(index, batch_size=13, train=False)) == 1


def test_missing_split_is_an_error(index: VideoIndex) -> None:
    with pytest.raises(DataError, match=r"no split 'val'; it has test, train$"):
        make(index, split="val")


def test_a_split_may_be_called_by_any_word_for_it(index: VideoIndex) -> None:
    with make(index, split="training", train=None) as named, make(index, split="train", train=None) as plain:
        assert named.split == "train"
        assert named.sampler.order(0).tolist() == plain.sampler.order(0).tolist()  # shuffled: it trains
    assert make(index, split="Testing", train=None).split == "test"

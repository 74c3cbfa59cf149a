from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plans import GOLDEN, PAPER, ROOT, as_json, chi_square, sampler, videos

from pipelines.batches import EpochBatches, LastBatch
from pipelines.class_balance import balanced_rows, class_weights
from pipelines.draws import random_words
from pipelines.errors import DataError
from pipelines.sampler import consecutive_frames, segment_frames
from pipelines.specs import ClipSpec

# Order, epochs, shards


def test_order_is_another_permutation_for_each_epoch_and_seed() -> None:
    columns = videos(*[20] * 40)
    orders = {(s, e): tuple(sampler(columns, seed=s).order(e).tolist()) for s in (0, 1, 2**62) for e in range(4)}
    assert all(sorted(order) == list(range(40)) for order in orders.values())
    assert len(set(orders.values())) == len(orders)
    made = sampler(columns)
    assert [made.plan(1, p).video_id - 100 for p in range(40)] == list(orders[0, 1])


def test_order_puts_each_video_everywhere() -> None:
    made = sampler(videos(*[20] * 6))
    places = np.array([made.order(epoch) for epoch in range(1200)])
    for place in range(6):
        assert chi_square(np.bincount(places[:, place], minlength=6)) < 22  # 5 degrees of freedom


def test_eval_order_is_the_index_and_the_same_every_epoch() -> None:
    made = sampler(videos(30, 50, 33), ClipSpec(sampling="consecutive", views="all"), train=False)
    assert [made.plan(0, p).video_id for p in range(made.num_clips)] == [100] * 2 + [101] * 4 + [102] * 3
    assert [made.plan(0, p).label for p in range(made.num_clips)] == [0] * 2 + [1] * 4 + [2] * 3
    for position in range(made.num_clips):
        assert as_json(made.plan(5, position)) == as_json(made.plan(0, position))


def test_plan_is_the_same_whatever_was_asked_before() -> None:
    columns = videos(*range(30, 50))
    places = [(epoch, position) for epoch in range(3) for position in range(20)]
    made = sampler(columns, seed=7)
    forward = {place: as_json(made.plan(*place)) for place in places}
    backward = {place: as_json(made.plan(*place)) for place in reversed(places)}
    alone = {place: as_json(sampler(columns, seed=7).plan(*place)) for place in places}
    assert forward == backward == alone
    assert len({tuple(plan["frames"]) for plan in forward.values()}) > 50  # and not all alike


def test_plan_is_the_same_in_a_fresh_process() -> None:
    code = (
        "import json, plans as t\n"
        "made = t.sampler(t.videos(*range(30, 50)), seed=7)\n"
        "print(json.dumps([t.as_json(made.plan(e, p)) for e, p in [(9, 3), (0, 0), (2**31, 19)]]))\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support' / 'videos'}", "PYTHONHASHSEED": "123"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    made = sampler(videos(*range(30, 50)), seed=7)
    assert json.loads(result.stdout) == [as_json(made.plan(e, p)) for e, p in [(9, 3), (0, 0), (2**31, 19)]]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_shards_together_are_the_one_shard(train: bool, count: int) -> None:
    columns, batch_size = videos(*range(30, 53)), 2
    one = sampler(columns, train=train)
    shards = [sampler(columns, train=train, shard=(k, count)) for k in range(count)]
    lengths = {shard.num_batches(batch_size) for shard in shards}
    every = batch_size * count
    assert lengths == ({23 // every} if train else {-(-23 // every)})
    (length,) = lengths
    together = []
    for number in range(length):
        parts = [list(shard.batch(1, number, batch_size)) for shard in shards]
        assert {len(part) for part in parts} == {batch_size}
        together += [as_json(part[i]) for i in range(batch_size) for part in parts]
    assert together == [as_json(one.plan(1, position)) for position in range(length * every)]
    real = [plan["video_id"] for plan in together if plan["is_real"]]
    assert len(real) == len(set(real)) == (length * every if train else 23)


def test_positions_count_clips_over_all_shards() -> None:
    columns = videos(*range(30, 54))
    one = sampler(columns)
    second = sampler(columns, shard=(1, 3))
    taken = [as_json(plan) for plan in second.batch(4, 1, 4)]  # its second batch of 4
    assert taken == [as_json(one.plan(4, position)) for position in (13, 16, 19, 22)]


def test_train_drops_the_remainder_and_eval_pads_it() -> None:
    columns = videos(*[20] * 10)
    assert sampler(columns).num_batches(4) == 2
    assert sampler(columns).num_batches(11) == 0
    made = sampler(columns, train=False)
    assert made.num_batches(4) == 3
    last = list(made.batch(0, 2, 4))
    assert [plan.is_real for plan in last] == [True, True, False, False]
    assert [plan.video_id for plan in last] == [108, 109, 109, 109]
    assert made.num_batches(5) == 2
    assert all(plan.is_real for number in range(2) for plan in made.batch(0, number, 5))


def test_empty_split_is_an_error() -> None:
    with pytest.raises(DataError, match="no videos to draw clips from: the split is empty; expected at least one"):
        sampler(videos())


# Golden values: what a checkpoint of today must find again after any upgrade


def golden() -> dict[str, Any]:
    """Words, orders and plans of fixed keys, as JSON."""
    columns = videos(8, 16, 29, 48, 131, 187, 240, 317, 640, 1776)
    consecutive = ClipSpec(sampling="consecutive", stride=2, short="loop", views=2)
    big = 2**63 - 1
    samplers = {
        "train segments": sampler(columns),
        "train consecutive": sampler(columns, consecutive, PAPER, seed=big),
        "eval segments": sampler(columns, train=False),
        "eval consecutive": sampler(columns, consecutive, PAPER, train=False),
    }
    return {
        "words": {
            " ".join(map(str, key)): [str(word) for word in random_words(4, *key).tolist()]
            for key in [(0,), (0, 0, 0), (1, 2, 3, 1), (big, 25, 9536, 3)]
        },
        "orders": {
            f"seed {seed} epoch {epoch}": sampler(columns, seed=seed).order(epoch).tolist()
            for seed in (0, 1, big)
            for epoch in (0, 1, 24)
        },
        "plans": {
            f"{name}, epoch {epoch} position {position}": as_json(made.plan(epoch, position))
            for name, made in samplers.items()
            for epoch, position in [(0, 0), (0, 9), (24, 4), (24, 11)]
        },
    }


def write_golden() -> None:
    """Write tests/golden/sampler.json anew. Only when draws are meant to change: older checkpoints can't resume then.

    From the tests folder: python -c "import test_sampler_order; test_sampler_order.write_golden()"
    """
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")


@pytest.mark.parametrize("part", ["words", "orders", "plans"])
def test_draws_are_those_of_the_golden_file(part: str) -> None:
    expected = json.loads(GOLDEN.read_text())[part]
    made = golden()[part]
    assert made.keys() == expected.keys()
    for key, value in expected.items():
        assert made[key] == value, key


def test_frame_functions_give_int32_without_words_and_with_them() -> None:
    spec = ClipSpec(num_frames=4)
    for choose in (segment_frames, consecutive_frames):
        for num_frames in (2, 40):
            for words in (None, random_words(4, 0)):
                assert choose(num_frames, spec, words).dtype == np.int32


# How an epoch is divided into batches

SOME = list(itertools.product((1, 2, 3, 7, 12, 23, 64, 300), (1, 2, 3, 8, 64), (1, 3)))


def sizes(batches: EpochBatches) -> list[int]:
    starts = [batches.start(number) for number in range(len(batches) + 1)]
    return [end - start for start, end in itertools.pairwise(starts)]


@pytest.mark.parametrize("last", ["drop", "spread", "pad"])
def test_each_position_belongs_to_the_batch_that_holds_it(last: LastBatch) -> None:
    for clips, most, repeats in SOME:
        batches = EpochBatches(clips, most, last, repeats)
        owners = [number for number, size in enumerate(sizes(batches)) for _ in range(size)]
        assert [batches.number_at(position) for position in range(len(owners))] == owners
        assert batches.number_at(len(owners)) == len(batches)


def test_drop_and_pad_have_full_batches() -> None:
    assert sizes(EpochBatches(300, 64)) == [64] * 4
    assert sizes(EpochBatches(300, 64, "pad")) == [64] * 5
    assert sizes(EpochBatches(20, 64)) == []
    assert sizes(EpochBatches(20, 8, "drop", 2)) == [8] * 4


def test_spread_uses_every_clip_in_batches_that_differ_by_one_at_most() -> None:
    for clips, most, _ in SOME:
        made = sizes(EpochBatches(clips, most, "spread"))
        assert sum(made) == clips
        assert max(made) <= most
        assert max(made) - min(made) <= 1
        assert len(made) == -(-clips // most)
        batches = EpochBatches(clips, most, "spread")
        assert (min(made), max(made)) == (batches.fewest, batches.largest)
    assert sizes(EpochBatches(300, 64, "spread")) == [60] * 5
    assert sizes(EpochBatches(65, 64, "spread")) == [33, 32]  # no batch of a single clip
    assert sizes(EpochBatches(5, 64, "spread")) == [5]


def test_the_batches_of_a_round_show_the_same_clips() -> None:
    batches = EpochBatches(7, 3, "spread", 2)
    assert sizes(batches) == [3, 3, 2, 2, 2, 2]
    places = [batches.place(position) for position in range(14)]
    assert places == [0, 1, 2, 0, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6]


# Classes of different sizes


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_balanced_epoch_is_as_long_and_shows_classes_equally_often(repeats: int) -> None:
    columns = replace(videos(*[80] * 24), label=np.repeat([0, 1, 2], [16, 6, 2]))
    made = sampler(columns, balanced=True, repeats=repeats, batch_size=4)
    assert made.num_clips == sampler(columns, repeats=repeats, batch_size=4).num_clips == 24 * repeats
    orders = set()
    for epoch in range(3):
        plans = [made.plan(epoch, position) for position in range(made.num_clips)]
        assert np.bincount([plan.label for plan in plans]).tolist() == [8 * repeats] * 3
        assert all(columns.label[plan.video_id - 100] == plan.label for plan in plans)
        orders.add(tuple(plan.video_id for plan in plans))
    assert len(orders) == 3
    again = [plan for plan in (made.plan(0, position) for position in range(24 * repeats)) if plan.label == 2]
    assert len({plan.video_id for plan in again}) == 2
    assert len({tuple(plan.frames) for plan in again}) > 2  # a video that is shown again shows other frames


def test_the_shards_of_a_balanced_epoch_make_up_the_whole() -> None:
    columns = replace(videos(*[80] * 24), label=np.repeat([0, 1, 2], [16, 6, 2]))
    whole = [as_json(plan) for plan in sampler(columns, balanced=True).batch(1, 0, 24)]
    parts = [
        [as_json(plan) for plan in sampler(columns, balanced=True, shard=(k, 3), batch_size=8).batch(1, 0, 8)]
        for k in range(3)
    ]
    assert [plan for row in zip(*parts, strict=True) for plan in row] == whole


def test_an_evaluation_is_never_balanced() -> None:
    columns = replace(videos(*[20] * 6), label=np.array([0, 0, 0, 0, 0, 1]))
    made = sampler(columns, train=False, balanced=True)
    assert [made.plan(0, position).video_id for position in range(6)] == list(range(100, 106))


UNEVEN = np.repeat([0, 1, 4], [17, 5, 2])  # 24 videos of three classes; classes 2 and 3 have none


@pytest.mark.parametrize("labels", [UNEVEN, np.arange(20) % 3, np.zeros(7, np.int64), np.repeat([3, 8], [1, 30])])
def test_every_epoch_shows_all_classes_equally_often(labels: np.ndarray) -> None:
    for epoch in (0, 1, 2, 9, 1000):
        rows = balanced_rows(labels, 3, epoch)
        assert len(rows) == len(labels)
        counts = np.bincount(labels[rows])[np.unique(labels)]
        assert counts.max() - counts.min() <= 1


def test_no_video_is_shown_again_before_all_others_of_its_class() -> None:
    rows = np.concatenate([balanced_rows(UNEVEN, 0, epoch) for epoch in range(50)])
    for label in np.unique(UNEVEN):
        shown = rows[UNEVEN[rows] == label]
        size = int((label == UNEVEN).sum())
        passes = shown[: len(shown) // size * size].reshape(-1, size)
        assert np.array_equal(np.sort(passes, axis=1), np.tile(np.flatnonzero(label == UNEVEN), (len(passes), 1)))
        assert size < 3 or len({tuple(order) for order in passes.tolist()}) > 1


def test_the_rows_follow_from_seed_and_epoch_alone() -> None:
    again = [balanced_rows(UNEVEN, 5, epoch).tolist() for epoch in (7, 0, 7, 3)]
    assert again[0] == again[2]
    assert again[0] != balanced_rows(UNEVEN, 6, 7).tolist()
    # As they were when they were first written: a run of then has to go on with them.
    assert balanced_rows(UNEVEN[14:], 5, 1).tolist() == [6, 9, 2, 7, 8, 1, 7, 9, 2, 6]


def test_each_of_ten_thousand_classes_is_shown() -> None:
    labels = np.arange(20_000) % 10_000
    assert np.array_equal(np.bincount(labels[balanced_rows(labels, 0, 3)]), np.full(10_000, 2))


def test_weights_are_inverse_to_the_videos_of_a_class_and_1_in_the_mean() -> None:
    weights = class_weights(UNEVEN, 6)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [24 / 51, 24 / 15, 1, 1, 24 / 6, 1], rtol=1e-6)
    np.testing.assert_allclose(weights[UNEVEN].mean(), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(class_weights(np.arange(12) % 4, 4), np.ones(4, np.float32))

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from plans import GOLDEN, PAPER, ROOT, as_json, chi_square, sampler, videos

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

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.datasets.entries import Entry
from pipelines.datasets.held_out import hold_out


def entries(*sizes: int, group: str = "") -> list[Entry]:
    """`sizes` videos of each class, in folders a, b, c, ..."""
    return [
        Entry(f"{'abcdefgh'[label]}/{k}.mp4", label, "", group=group) for label, n in enumerate(sizes) for k in range(n)
    ]


def held(found: list[Entry]) -> Counter[int]:
    return Counter(entry.label for entry in found if entry.split == "test")


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [(0.2, {0: 4, 1: 2, 2: 1}), (0.5, {0: 10, 1: 5, 2: 1}), (0.0, {}), (0.9, {0: 18, 1: 9, 2: 1})],
)
def test_each_class_gives_its_share_and_keeps_a_video(fraction: float, counts: dict[int, int]) -> None:
    found = hold_out(entries(20, 10, 2, 1), fraction)
    assert held(found) == counts
    assert {entry.label for entry in found if entry.split == "train"} == {0, 1, 2, 3}


def test_a_video_keeps_its_split_when_others_come() -> None:
    few = {entry.path: entry.split for entry in hold_out(entries(20), 0.2)}
    many = {entry.path: entry.split for entry in hold_out(entries(40), 0.2)}
    moved = sum(few[path] == "test" and many[path] == "train" for path in few)
    assert moved <= 1


def test_a_group_of_several_classes_does_not_overfill_one_of_them() -> None:
    large = [Entry(f"a/big{k}.mp4", 0, "", group="big") for k in range(50)] + [Entry("b/big.mp4", 1, "", group="big")]
    found = hold_out([*entries(50, 50), *large], 0.2)
    assert 8 <= held(found)[0] <= 30
    assert held(found)[1] == 10


def test_each_of_ten_thousand_classes_gives_a_video() -> None:
    many = [Entry(f"c{label}/{k}.mp4", label, "") for label in range(10_000) for k in range(3)]
    assert held(hold_out(many, 0.2)) == Counter(range(10_000))

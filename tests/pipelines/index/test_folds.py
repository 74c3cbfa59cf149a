from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clips import write_stamped_video

from pipelines.errors import DataError
from pipelines.index.folds import Fold, assign_folds, fold_named
from pipelines.index.video_index import VideoIndex


@pytest.mark.parametrize("count", [2, 5, 10])
def test_classes_are_spread_evenly_over_the_folds(count: int) -> None:
    labels = np.repeat([0, 1, 2], [53, 20, 11])
    folds = assign_folds(labels, [f"v{k}" for k in range(84)], count)
    for label in range(3):
        sizes = np.bincount(folds[labels == label], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(folds, minlength=count)
    assert sizes.max() - sizes.min() <= 3


def test_a_group_is_in_one_fold_and_folds_stay_even() -> None:
    random = np.random.default_rng(0)
    groups = [f"rec{number}" for number in random.integers(0, 40, 400)]
    labels = random.integers(0, 4, 400)
    folds = assign_folds(labels, groups, 5)
    assert all(len({fold for fold, own in zip(folds.tolist(), groups, strict=True) if own == g}) == 1 for g in groups)
    for label in range(4):
        sizes = np.bincount(folds[labels == label], minlength=5)
        assert sizes.max() <= 1.5 * sizes.min()


def test_folds_follow_from_the_names_alone() -> None:
    labels, names = np.arange(30) % 3, [f"v{k}" for k in range(30)]
    folds = dict(zip(names, assign_folds(labels, names, 3).tolist(), strict=True))
    order = np.random.default_rng(1).permutation(30)
    again = assign_folds(labels[order], [names[k] for k in order], 3).tolist()
    assert {names[k]: fold for k, fold in zip(order, again, strict=True)} == folds


def test_fewer_groups_than_folds_are_an_error() -> None:
    with pytest.raises(DataError, match="3 folds of 4 videos in 2 groups: expected at least one group a fold"):
        assign_folds(np.zeros(4, np.int64), ["a", "a", "b", "b"], 3)


@pytest.mark.parametrize("fold", [Fold(1, 2), Fold(5, 5), Fold(2, 10, is_rest=True)])
def test_a_fold_is_known_by_its_name(fold: Fold) -> None:
    assert fold_named(str(fold)) == fold


@pytest.mark.parametrize("name", ["train", "fold-0-of-5", "fold-6-of-5", "fold-1-of-1", "fold-1-of-5 ", "fold--1-of-5"])
def test_other_names_are_no_fold(name: str) -> None:
    assert fold_named(name) is None


def build(root: Path, *paths: str, **options: object) -> VideoIndex:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_stamped_video(root / path, num_frames=4 + number % 7)
    return VideoIndex.build(root, workers=0, **options)  # type: ignore[arg-type]


def test_the_folds_of_an_index_are_splits_that_make_up_the_whole(tmp_path: Path) -> None:
    paths = [f"{c}/rec{r}_{k}.avi" for c in "ab" for r in range(6) for k in range(2)]
    index = build(tmp_path / "data", *paths, group="rec[0-9]+")
    names, states, seen = index.names(), index.file_states(), Counter[str]()
    for part in (1, 2, 3):
        own = index.columns(f"fold-{part}-of-3").video_id.tolist()
        rest = index.columns(f"without-fold-{part}-of-3").video_id.tolist()
        assert sorted(own + rest) == list(range(24))
        assert not {names[k].partition("rec")[2][0] for k in own} & {names[k].partition("rec")[2][0] for k in rest}
        assert index.largest_file(f"fold-{part}-of-3") == max(states[k].size for k in own)
        assert sum(count for _, count in index.kinds(f"fold-{part}-of-3")) == len(own)
        seen.update(names[k] for k in own)
    assert seen == Counter(paths)
    assert index.own_split("fold-3-of-3") == "fold-3-of-3"
    with pytest.raises(DataError, match="7 folds of 24 videos in 6 groups"):
        index.columns("fold-1-of-7")
    with pytest.raises(DataError, match="no split 'fold-4-of-3'"):
        index.columns("fold-4-of-3")


def test_test_videos_that_folders_name_are_in_no_fold(tmp_path: Path) -> None:
    paths = [f"{side}/a/{k}.avi" for side, count in (("train", 6), ("test", 2)) for k in range(count)]
    index = build(tmp_path / "data", *paths)
    names = index.names()
    own = {names[k] for part in (1, 2) for k in index.columns(f"fold-{part}-of-2").video_id.tolist()}
    assert own == {path for path in paths if path.startswith("train")}

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import lines, split_of, touch

from pipelines.datasets.lists.split_files import split_of_name
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import ListError, UsageError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("Validation.TXT", "val"),
        ("kinetics400_val_list_videos.txt", "val"),
        ("ucf101_train_split_1_videos.txt", "train"),
        ("something-something-v2-validation.json", "val"),
        ("train_small_videos.list", "train"),
        ("trainlist.txt", "train"),
        ("hmdb51_test_split2.txt", "test"),
        ("train_val.txt", ""),
        ("retrain.txt", ""),
        ("labels.json", ""),
    ],
)
def test_the_split_is_a_word_of_the_name(name: str, split: str) -> None:
    assert split_of_name(name) == split


@pytest.mark.parametrize("names", [("train.txt", "test.txt"), ("a_training_1.list", "a_testing_1.list")])
def test_names_give_the_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, video in zip(names, ("1.mp4", "2.mp4"), strict=True):
        lines(tmp_path / "l" / name, f"{video} 0")
    lines(tmp_path / "l/readme.txt", "no list")
    lines(tmp_path / "l/train.pkl", "no list")
    data = recognise_dataset(touch(tmp_path / "r", "1.mp4", "2.mp4"), lists=tmp_path / "l")
    assert split_of(data) == {"1.mp4": "train", "2.mp4": "test"}


def test_lists_without_a_number_beside_numbered_ones_are_named(tmp_path: Path) -> None:
    for name in ("x_train_split_1.txt", "x_val_split_1.txt", "train.txt"):
        lines(tmp_path / "l" / name, f"{len(name)}.mp4 0")
    data = recognise_dataset(touch(tmp_path / "r", "19.mp4", "17.mp4"), lists=tmp_path / "l")
    assert data.lists_split == 1
    assert data.warnings[0] == "lists without the number of a split are left out: train.txt"


def test_a_number_where_no_list_has_one(tmp_path: Path) -> None:
    lines(tmp_path / "l/train.txt", "1.mp4 0")
    with pytest.raises(UsageError, match=r"split 2 with .*/l: its lists have no numbers; leave split out"):
        recognise_dataset(touch(tmp_path / "r", "1.mp4"), lists=tmp_path / "l", split=2)


def test_two_lists_for_one_split(tmp_path: Path) -> None:
    lines(tmp_path / "l/train.txt", "1.mp4 0")
    lines(tmp_path / "l/train.csv", "1.mp4,0")
    with pytest.raises(ListError, match=r"train\.csv and train\.txt are both for train; expected one list a split"):
        recognise_dataset(touch(tmp_path / "r", "1.mp4"), lists=tmp_path / "l")


def test_lists_of_frames_alone_are_an_error(tmp_path: Path) -> None:
    lines(tmp_path / "l/ucf101_train_split_1_rawframes.txt", "a/1 30 0")
    lines(tmp_path / "l/ucf101_val_split_1_rawframes.txt", "a/2 30 0")
    with pytest.raises(ListError, match=r"train_split_1_rawframes\.txt:1: 'a/1 30 0' names frames"):
        recognise_dataset(touch(tmp_path / "r", "1.mp4"), lists=tmp_path / "l")


def test_a_list_without_labels_is_left_out_beside_others(tmp_path: Path) -> None:
    lines(tmp_path / "l/train.txt", "1.mp4 0", "2.mp4 1")
    lines(tmp_path / "l/test.txt", "a b.mp4", "4.mp4")
    root = touch(tmp_path / "r", "1.mp4", "2.mp4")
    data = recognise_dataset(root, lists=tmp_path / "l")
    assert data.warnings[0] == f"{tmp_path}/l/test.txt has no labels and is left out"
    (tmp_path / "l/train.txt").unlink()
    with pytest.raises(ListError, match=r"l/test\.txt: no video has a label; expected lists of labelled videos"):
        recognise_dataset(root, lists=tmp_path / "l")

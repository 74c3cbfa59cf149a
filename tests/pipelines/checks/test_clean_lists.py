from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import clips
import pytest

from pipelines.checks.check import Check, Trouble
from pipelines.checks.clean_lists import check_free, clean_lists
from pipelines.checks.index_check import check_index
from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex


def write(root: Path, *paths: str) -> VideoIndex:
    """The index of videos at `paths`, no two of which are alike."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(root / path, num_frames=6 + number)
    return VideoIndex.build(root, workers=0)


def splits_of(index: VideoIndex) -> dict[str, list[str]]:
    names = index.names()
    return {split: [names[number] for number in index.columns(split).video_id] for split in index.splits}


def with_faults(index: VideoIndex, *broken: str, corrupt: dict[str, int] | None = None) -> Check:
    check = check_index(index)
    frames = dict.fromkeys(corrupt or {}, 10)
    return replace(
        check,
        unreadable=tuple(Trouble(name, "does not decode") for name in broken),
        corrupt=corrupt or {},
        frames=frames,
    )


def test_lists_of_class_folders_are_ucfs_and_make_the_same_index_without_what_is_broken(tmp_path: Path) -> None:
    paths = [f"{name}/v_{name}_g{group:02d}_c01.avi" for name in ("Run", "Jump Rope") for group in range(8)]
    index = write(tmp_path / "data", *paths)
    train, test = index.columns("train").video_id, index.columns("test").video_id
    names = index.names()
    bad, damaged, little = names[train[0]], names[test[0]], names[train[1]]
    check = with_faults(index, bad, corrupt={damaged: 6, little: 5})
    lists = clean_lists(index, check, 0.5)
    assert set(lists.files) == {"classInd.txt", "trainlist01.txt", "testlist01.txt"}
    assert lists.left_out == {bad: "does not decode", damaged: "damaged: 6 of 10 frames"}
    lists.write(tmp_path / "lists")
    again = VideoIndex.build(tmp_path / "data", lists=tmp_path / "lists", index=tmp_path / "again", workers=0)
    assert again.classes == index.classes
    assert splits_of(again) == {
        split: [n for n in those if n not in lists.left_out] for split, those in splits_of(index).items()
    }
    assert [again[i].label for i in range(len(again))] == [
        index[i].label for i in range(len(index)) if names[i] not in lists.left_out
    ]


def test_lists_of_other_folders_are_a_csv_for_each_split(tmp_path: Path) -> None:
    index = write(
        tmp_path / "data", "train/a/0.avi", "train/b, c/1.avi", "val/a/2.avi", "test/a/3.avi", "test/b, c/4.avi"
    )
    lists = clean_lists(index, check_index(index), 0.5)
    assert set(lists.files) == {"train.csv", "val.csv", "test.csv"}
    lists.write(tmp_path / "lists")
    again = VideoIndex.build(tmp_path / "data", lists=tmp_path / "lists", index=tmp_path / "again", workers=0)
    assert (splits_of(again), again.classes) == (splits_of(index), index.classes)


def test_of_copies_one_stays_and_those_with_two_labels_leave(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "train/a/0.avi", "train/a/1.avi", "train/a/2.avi", "train/b/3.avi", "test/a/4.avi", "test/b/5.avi")
    shutil.copy(root / "test/a/4.avi", root / "train/a/leak.avi")
    shutil.copy(root / "train/a/0.avi", root / "train/a/twice.avi")
    shutil.copy(root / "train/a/1.avi", root / "train/b/other.avi")
    index = VideoIndex.build(root, workers=0)
    lists = clean_lists(index, check_index(index), 0.5)
    assert lists.left_out == {
        "train/a/1.avi": "copied into another class: train/a/1.avi = train/b/other.avi",
        "train/a/leak.avi": "a copy of test/a/4.avi",
        "train/a/twice.avi": "a copy of train/a/0.avi",
        "train/b/other.avi": "copied into another class: train/a/1.avi = train/b/other.avi",
    }


def test_a_broken_copy_is_not_the_one_that_stays(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "train/a/0.avi", "train/b/1.avi", "test/a/2.avi", "test/b/3.avi")
    shutil.copy(root / "train/a/0.avi", root / "train/a/twice.avi")
    index = VideoIndex.build(root, workers=0)
    lists = clean_lists(index, with_faults(index, "train/a/0.avi"), 0.5)
    assert list(lists.left_out) == ["train/a/0.avi"]


def test_the_videos_of_one_recording_stay_in_the_test_split(tmp_path: Path) -> None:
    index = write(
        tmp_path / "data", "train/x/v_x_g01_c01.avi", "train/x/v_x_g02_c01.avi", "test/x/v_x_g01_c02.avi",
        "train/y/v_y_g01_c01.avi",
    )  # fmt: skip
    lists = clean_lists(index, check_index(index), 0.5)
    assert lists.left_out == {"train/x/v_x_g01_c01.avi": "of the recording x/x/g01, as a test video"}


def test_lists_that_are_there_already_are_not_replaced(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "full/mine.txt", "link"):
        with pytest.raises(UsageError, match="already there; expected a new or an empty folder"):
            check_free(tmp_path / name)

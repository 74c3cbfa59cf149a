"""Lists that were made on another machine: their paths are led to the videos in ROOT, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import lines, touch

from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError

TAKEN = "was taken off its paths, so that they lead to the videos in ROOT"


def paths(root: Path, lists: Path) -> list[str]:
    return [entry.path for entry in recognise_dataset(root, lists=lists).entries]


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ("/data/me/ucf/a/1.mp4", "/data/me/ucf/"),
        ("./data/ucf/a/1.mp4", "data/ucf/"),
        ("../ucf/a/1.mp4", "../ucf/"),
        ("C:\\ucf\\a\\1.mp4", "C:/ucf/"),
        ("/a/1.mp4", "/"),
    ],
)
def test_a_beginning_of_another_machine_is_taken_off(tmp_path: Path, listed: str, shown: str) -> None:
    root = touch(tmp_path / "r", "a/1.mp4", "a/2.mp4", "b/1.mp4")
    file = lines(tmp_path / "l.txt", f"{listed} 0", f"{listed.replace('1', '2')} 0")
    data = recognise_dataset(root, lists=file)
    assert [entry.path for entry in data.entries] == ["a/1.mp4", "a/2.mp4"]
    assert f"{file}: {shown} {TAKEN}" in data.warnings


def test_beginnings_are_exchanged(tmp_path: Path) -> None:
    file = lines(tmp_path / "l.txt", "/old/videos/a/1.mp4 0", "/old/videos/b/2.mp4 1")
    data = recognise_dataset(touch(tmp_path / "r", "new/a/1.mp4", "new/b/2.mp4"), lists=file)
    assert [entry.path for entry in data.entries] == ["new/a/1.mp4", "new/b/2.mp4"]
    assert data.warnings[0] == (
        f"{file}: /old/videos/ at the beginning of its paths became new/, so that they lead to the videos in ROOT"
    )


def test_each_split_of_a_csv_may_lie_elsewhere(tmp_path: Path) -> None:
    rows = ["x/1.mp4,a,train", "x/2.mp4,a,train", "x/1.mp4,b,val", "x/3.mp4,b,val"]
    root = touch(tmp_path / "r", "k_train/x/1.mp4", "k_train/x/2.mp4", "k_val/x/1.mp4", "k_val/x/3.mp4")
    file = lines(tmp_path / "l.csv", *rows)
    data = recognise_dataset(root, lists=file)
    assert [(entry.path, entry.split) for entry in data.entries] == [
        ("k_train/x/1.mp4", "train"),
        ("k_train/x/2.mp4", "train"),
        ("k_val/x/1.mp4", "test"),
        ("k_val/x/3.mp4", "test"),
    ]
    assert f"{file}: k_val/ was put before its paths of test, so that they lead to the videos in ROOT" in data.warnings


def test_paths_that_are_there_are_not_changed(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "a/1.mp4", "copy/a/1.mp4", "copy/a/2.mp4", "copy/a/3.mp4")
    with pytest.raises(DataError, match=r"2 of 3 listed videos are missing in .*: a/2\.mp4, a/3\.mp4"):
        paths(root, lines(tmp_path / "l.txt", "a/1.mp4 0", "a/2.mp4 0", "a/3.mp4 0"))


def test_absolute_paths_inside_a_linked_root(tmp_path: Path) -> None:
    touch(tmp_path / "real", "a/1.mp4", "a/2.mp4")
    (tmp_path / "link").symlink_to("real")
    file = lines(tmp_path / "l.txt", f"{tmp_path}/real/a/1.mp4 0", f"{tmp_path}/link/a/2.mp4 0")
    data = recognise_dataset(tmp_path / "link", lists=file)
    assert [entry.path for entry in data.entries] == ["a/1.mp4", "a/2.mp4"]
    assert not [text for text in data.warnings if "ROOT" in text]


def test_two_places_that_fit_are_an_error(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", *(f"{top}/a/{i}.mp4" for top in ("x", "y") for i in (1, 2)))
    file = lines(tmp_path / "l.txt", "a/1.mp4 0", "a/2.mp4 0")
    with pytest.raises(ListError, match=r"l\.txt: its videos may be those in x/ and y/; expected one place: give"):
        paths(root, file)


def test_the_place_with_the_word_of_the_split_is_taken(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", *(f"videos_{top}/a/{i}.mp4" for top in ("train", "val") for i in (1, 2)))
    for side in ("train", "val"):
        lines(tmp_path / f"l/{side}.txt", "a/1.mp4 0", "a/2.mp4 0")
    data = recognise_dataset(root, lists=tmp_path / "l")
    assert {(entry.path.partition("/")[0], entry.split) for entry in data.entries} == {
        ("videos_train", "train"),
        ("videos_val", "test"),
    }


def test_one_name_that_is_there_by_chance_is_no_evidence(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "b/1.mp4")
    with pytest.raises(ListError, match=r"l\.txt:1: /x/b/1\.mp4 is outside the root, and no end of the listed paths"):
        paths(root, lines(tmp_path / "l.txt", "/x/b/1.mp4 0"))
    with pytest.raises(DataError, match=r"1 of 1 listed videos are missing in .*: x/b/1\.mp4"):
        paths(root, lines(tmp_path / "l.txt", "x/b/1.mp4 0"))


def test_missing_videos_of_another_machine_are_named_as_they_should_lie_here(tmp_path: Path) -> None:
    file = lines(tmp_path / "l.txt", *(f"/x/b/{i}.mp4 0" for i in range(5)))
    with pytest.raises(
        DataError, match=r"3 of 5 .* missing in .*: b/2\.mp4, b/3\.mp4, b/4\.mp4; .*: /x/ was taken off"
    ):
        paths(touch(tmp_path / "r", "b/0.mp4", "b/1.mp4"), file)


def test_many_videos_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [f"{i:03}" for i in range(300)]
    root = touch(tmp_path / "r", *(f"{folder}/v.mp4" for folder in folders))
    file = lines(tmp_path / "l.txt", *(f"/x/{folder}/v.mp4 0" for folder in folders))
    assert paths(root, file) == [f"{folder}/v.mp4" for folder in folders]

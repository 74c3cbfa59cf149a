"""Labels that count from 0 or 1, labels with gaps, and the files of class names beside the lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layouts import labels, lines, touch

from pipelines.datasets.entries import Dataset
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import ListError

FROM_1 = "the labels count from 1: {0} different ones up to {0}, none is 0; so label 1 became class 0"


def indexed(tmp_path: Path, numbers: list[int], name: str = "l.txt", delimiter: str = " ") -> Dataset:
    """The data set of a list that gives video i the label `numbers[i]`."""
    root = touch(tmp_path / "r", *(f"{i}.mp4" for i in range(len(numbers))))
    rows = [f"{i}.mp4{delimiter}{number}" for i, number in enumerate(numbers)]
    return recognise_dataset(root, lists=lines(tmp_path / "l" / name, *rows), val_fraction=0)


@pytest.mark.parametrize(("name", "delimiter"), [("l.txt", " "), ("l.csv", ","), ("l.csv", ";"), ("train.csv", " ")])
def test_labels_from_1_without_gaps_are_taken_as_such(tmp_path: Path, name: str, delimiter: str) -> None:
    data = indexed(tmp_path, [1, 2, 3, 2], name, delimiter)
    assert data.classes == ("1", "2", "3")
    assert [entry.label for entry in data.entries] == [0, 1, 2, 1]
    assert FROM_1.format(3) in data.warnings


def test_all_lists_together_decide_where_labels_begin(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "1.mp4", "2.mp4", "3.mp4")
    lines(tmp_path / "l/train.txt", "1.mp4 1", "2.mp4 2")
    lines(tmp_path / "l/val.txt", "3.mp4 0")
    data = recognise_dataset(root, lists=tmp_path / "l")
    assert data.classes == ("0", "1", "2")
    assert not [text for text in data.warnings if "count from 1" in text]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3, 1], r"l\.txt:2: label 1 is the lowest of 2 different ones, up to 3; expected all from 0 to 1, or from 1"),
        ([5, 6], r"l\.txt:1: label 5 is the lowest of 2"),
        ([0, 9, 1], r"l\.txt:2: label 9, but there are only 3 different labels; expected 0\.\.2: number the classes"),
        ([0, 100_000], r"l\.txt:2: label 100000 is out of range; list labels are 0-based: expected 0\.\.99999"),
    ],
)
def test_no_empty_class_is_made_of_odd_labels(tmp_path: Path, numbers: list[int], text: str) -> None:
    with pytest.raises(ListError, match=text):
        indexed(tmp_path, numbers)


def test_a_small_gap_is_an_empty_class_and_a_warning(tmp_path: Path) -> None:
    data = indexed(tmp_path, [0, 1, 3])
    assert data.classes == ("0", "1", "2", "3")
    assert "classes of the lists without a video (1): 2" in data.warnings


K400 = {"abseil": 0, "b c": 1, "drum": 2}
NAME_FILES = {
    "classes.txt": "abseil\nb c\ndrum\n",
    "class_names.txt": "abseil\nb c\ndrum\n",
    "classInd.txt": "1 abseil\n3 drum\n2 b c\n",
    "label_map_k400.txt": "abseil\nb c\ndrum\n",
    "label_map.txt": "abseil\nb c\ndrum\n",
    "category.txt": "abseil\nb c\ndrum\n",
    "kinetics_classnames.json": json.dumps({f'"{name}"': number for name, number in K400.items()}),
    "something-something-v2-labels.json": json.dumps({name: str(number) for name, number in K400.items()}),
    "jester-v1-labels.csv": "abseil\nb c\ndrum\n",
}


@pytest.mark.parametrize("name", NAME_FILES)
@pytest.mark.parametrize("first", [0, 1])
def test_names_come_from_a_file_beside_the_list(tmp_path: Path, name: str, first: int) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / name).write_text(NAME_FILES[name], encoding="utf-8")
    data = indexed(tmp_path, [first, 2 + first])
    assert labels(data) == {"0.mp4": ("abseil", "train"), "1.mp4": ("drum", "train")}
    assert data.classes == tuple(K400)
    assert [text for text in data.warnings if "count from 1" in text] == [FROM_1.replace("{0}", "{}").format(2, 3)][
        :first
    ]


def test_labels_beyond_the_names_are_an_error(tmp_path: Path) -> None:
    lines(tmp_path / "l/label_map.txt", *K400)
    with pytest.raises(ListError, match=r"l\.txt:2: label 3 is out of range; .* expected 0\.\.2, the classes of .*map"):
        indexed(tmp_path, [0, 3])
    data = indexed(tmp_path, [1, 1])
    assert data.classes == tuple(K400)
    assert any(text.startswith("no label is 0, which is abseil in ") for text in data.warnings)


def test_of_several_files_the_one_with_as_many_names_as_labels_is_taken(tmp_path: Path) -> None:
    lines(tmp_path / "l/label_map_k400.txt", *K400)
    lines(tmp_path / "l/label_map_k600.txt", "p", "q", "r", "s")
    assert indexed(tmp_path, [0, 1, 2]).classes == tuple(K400)
    data = indexed(tmp_path, [0, 1])
    assert data.classes == ("0", "1")
    assert any(text.startswith("2 files of class names are beside the lists, none is used: ") for text in data.warnings)


def test_a_file_that_lacks_classes_of_a_csv_is_not_used(tmp_path: Path) -> None:
    lines(tmp_path / "l/label_map.txt", *K400)
    file = lines(tmp_path / "l/x.csv", "0.mp4,drum", "1.mp4,yoga")
    data = recognise_dataset(touch(tmp_path / "r", "0.mp4", "1.mp4"), lists=file)
    assert data.classes == ("drum", "yoga")
    assert any(text.endswith("label_map.txt lacks classes of the lists and is not used") for text in data.warnings)


@pytest.mark.parametrize(
    ("rows", "classes"),
    [
        (["d/run/1.mp4 0", "d/run/2.mp4 0", "d/sit/3.mp4 1"], ("run", "sit")),
        (["sit/1.mp4 1", "run/2.mp4 2"], ("sit", "run")),
        (["run/1.mp4 0", "sit/2.mp4 0", "sit/3.mp4 1"], ("0", "1")),
        (["run/1.mp4 0", "run/2.mp4 1"], ("0", "1")),
        (["run/1.mp4 0", "2.mp4 1"], ("0", "1")),
        (["run/1.mp4 0", "sit/2.mp4 1", "go/3.mp4 3"], ("0", "1", "2", "3")),
    ],
)
def test_classes_are_called_like_the_folders_if_each_has_its_own(
    tmp_path: Path, rows: list[str], classes: tuple[str, ...]
) -> None:
    root = touch(tmp_path / "r", *(row.rpartition(" ")[0] for row in rows))
    assert recognise_dataset(root, lists=lines(tmp_path / "l.txt", *rows)).classes == classes

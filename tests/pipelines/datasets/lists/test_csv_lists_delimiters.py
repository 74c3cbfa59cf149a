"""Semicolons and tabs in CSV, names without an extension as in Something-Something v1, and a CSV for each split."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import labels, lines, touch, videos

from pipelines.datasets.lists.csv_lists import delimiter_of
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError
from pipelines.index.video_index import VideoIndex


@pytest.mark.parametrize(
    ("text", "suffix", "delimiter"),
    [
        ("a.avi,run\n", ".csv", ","),
        ("a.avi;run\n", ".csv", ";"),
        ("a.avi\trun\n", ".csv", "\t"),
        ("a.avi,run\n", ".tsv", ","),
        ("a.avi;run\n", ".txt", ";"),
        ("a.avi,3\n", ".txt", ","),
        ("a, b/c.avi 3\n", ".csv", " "),
        ("a b.avi 3\n", ".txt", " "),
        ("a b 3\n", ".txt", " "),
        ("a b 3\n", ".csv", ","),
        ("dir/a 163 3\n", ".csv", " "),
        ('"a;b.avi",run\n"c;d.avi",run\n', ".csv", ","),
        ('"a,b.avi";run, fast\n', ".csv", ";"),
        ("1;Lifting something, then dropping it\n2;Holding something\n", ".csv", ";"),
        ("1;Lifting something, then dropping it\n", ".csv", ";"),
        ("path;label\na.avi;run\n", ".csv", ";"),
        ("", ".csv", ","),
        ('"', ".csv", ","),
    ],
)
def test_the_delimiter_is_found_out(text: str, suffix: str, delimiter: str) -> None:
    assert delimiter_of(text, suffix) == delimiter


def test_something_something_v1(tmp_path: Path) -> None:
    drop, hold = "Lifting something up, then letting it drop", "Holding something"
    videos(tmp_path / "r", *(f"{i}.webm" for i in range(1, 6)))
    lines(tmp_path / "l/something-something-v1-train.csv", f"1;{hold}", f"2;{drop}")
    lines(tmp_path / "l/something-something-v1-validation.csv", f"3;{hold}", f"4;{drop}")
    lines(tmp_path / "l/something-something-v1-test.csv", "5")
    lines(tmp_path / "l/something-something-v1-labels.csv", drop, hold)
    index = VideoIndex.build(tmp_path / "r", lists=tmp_path / "l", workers=0)
    assert (index.kind, index.classes) == ("csv", (drop, hold))
    assert [(r.path, r.label, r.split) for r in (index[i] for i in range(len(index)))] == [
        ("1.webm", 1, "train"),
        ("2.webm", 0, "train"),
        ("3.webm", 1, "test"),
        ("4.webm", 0, "test"),
    ]
    assert index.warnings[0].endswith("something-something-v1-test.csv has no labels and is left out")


def test_semicolons_header_quotes_and_splits(tmp_path: Path) -> None:
    rows = ["id;label;split", '"a;1";run;train', '2;"sit; down";train', "3;run;test"]
    root = touch(tmp_path / "r", "a;1.mp4", "2.mp4", "3.mkv")
    data = recognise_dataset(root, lists=lines(tmp_path / "l.csv", *rows))
    assert labels(data) == {
        "2.mp4": ("sit; down", "train"),
        "3.mkv": ("run", "test"),
        "a;1.mp4": ("run", "train"),
    }


def test_a_csv_of_commas_for_each_split(tmp_path: Path) -> None:
    lines(tmp_path / "l/train.csv", "/else/a/1.mp4,0", "/else/b/2.mp4,1")
    lines(tmp_path / "l/val.csv", "/else/a/3.mp4,0")
    data = recognise_dataset(touch(tmp_path / "r", "a/1.mp4", "b/2.mp4", "a/3.mp4"), lists=tmp_path / "l")
    assert labels(data) == {"a/1.mp4": ("0", "train"), "a/3.mp4": ("0", "test"), "b/2.mp4": ("1", "train")}


def test_a_name_without_extension_must_be_that_of_one_video(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "1.mp4", "1.avi", "2.mp4", "3/x.jpg", "3.mp4")
    with pytest.raises(ListError, match=r"l\.csv:2: 1 may be 1\.avi or 1\.mp4; add the extension"):
        recognise_dataset(root, lists=lines(tmp_path / "l.csv", "2;a", "1;b"))
    with pytest.raises(DataError, match=r"1 of 2 listed videos are missing in .*: 9;"):
        recognise_dataset(root, lists=lines(tmp_path / "l.csv", "2;a", "9;b"))
    data = recognise_dataset(root, lists=lines(tmp_path / "l.csv", "2;a", "3;b"))
    assert sorted(labels(data)) == ["2.mp4", "3.mp4"], "the folder of frames beside the video is not meant"

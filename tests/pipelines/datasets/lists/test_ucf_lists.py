from __future__ import annotations

import os
from pathlib import Path

import pytest
from layouts import labels, lines, touch, ucf

from pipelines.datasets.entries import LeftOut
from pipelines.datasets.lists.forms import read_lists
from pipelines.datasets.lists.hmdb_lists import parse_hmdb
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError

# ---- UCF-101 lists


def test_ucf_lists_with_crlf_mark_blanks_and_comments(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/v_Lunges_g01_c01.avi", "Punch/a b.avi", "Punch/v_Punch_g02_c01.avi")
    folder = ucf(tmp_path / "l", [], [])
    lines(folder / "classInd.txt", "\ufeff1 Lunges ", "", "# note", "2 Punch", end="\r\n")
    lines(folder / "trainlist01.txt", "\ufeffLunges/v_Lunges_g01_c01.avi 1  ", "", "#Punch/gone.avi 2", end="\r\n")
    lines(folder / "testlist01.txt", "./Punch/a b.avi", "Punch/v_Punch_g02_c01.avi 2 ", "  ", end="\r\n")
    data = recognise_dataset(tmp_path / "r", lists=folder)
    assert (data.kind, data.classes) == ("ucf101", ("Lunges", "Punch"))
    assert labels(data) == {
        "Lunges/v_Lunges_g01_c01.avi": ("Lunges", "train"),
        "Punch/a b.avi": ("Punch", "test"),
        "Punch/v_Punch_g02_c01.avi": ("Punch", "test"),
    }


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Lunges/a.avi 0", r"label 0 is out of range; UCF lists are 1-based: expected 1 for Lunges \(1\.\.2\)"),
        ("Lunges/a.avi -1", "label -1 is out of range; UCF lists are 1-based"),
        ("Lunges/a.avi 3", "label 3 is out of range; UCF lists are 1-based"),
        ("Punch/a.avi 1", "label 1 is not Punch in classInd.txt; UCF lists are 1-based: expected 2"),
        ("Lunges/a.avi one", "label 'one' is not an integer; UCF lists are 1-based"),
        ("Lunges/a.avi 1.0", "label '1.0' is not an integer; UCF lists are 1-based"),
        ("Lunges/a.avi ١", "label '١' is not an integer; UCF lists are 1-based"),  # noqa: RUF001
        ("Lunges/a.avi", "no label after Lunges/a.avi; expected '<class>/<video> <label>'"),
        ("Yoga/a.avi 1", r"Yoga/a.avi is in no class folder named in classInd.txt \(2 classes\)"),
        ("a.avi 1", "a.avi is in no class folder named in classInd.txt"),
        ("Lunges/../../a.avi 1", "is outside the root; expected a path relative to it"),
        ("../Lunges/a.avi 1", "is outside the root"),
        ("/etc/a.avi 1", "is outside the root"),
        ("Lunges/a.txt 1", "is no video file name; expected one of .avi .mkv .mov .mp4 .webm and"),
        ("7", "'7' is no video file name"),
    ],
)
def test_bad_ucf_line_names_file_line_and_value(tmp_path: Path, line: str, text: str) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/ok.avi 1", "", line], ["Punch/x.avi"])
    with pytest.raises(ListError, match=rf"l/trainlist01\.txt:3: .*{text}"):
        recognise_dataset(touch(tmp_path / "r", "Lunges/ok.avi"), lists=folder)


def test_test_list_label_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"testlist01\.txt:1: label 1 is not Punch"):
        read_lists(ucf(tmp_path, ["Lunges/a.avi 1"], ["Punch/x.avi 1"]))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["0 A", "1 B"], "2 classes, numbered 0 to 1; expected each number once, from 1 on"),
        (["1 A", "3 B"], "2 classes, numbered 1 to 3; expected each number once"),
        (["1 A", "1 B"], ":2: '1 B' repeats a number or a class"),
        (["1 A", "2 A"], ":2: '2 A' repeats a number or a class"),
        (["A 1"], ":1: 'A 1'; expected '<number> <class>'"),
        (["1"], ":1: '1'; expected '<number> <class>'"),
        ([], "no class names in it"),
    ],
)
def test_bad_class_ind(tmp_path: Path, rows: list[str], text: str) -> None:
    folder = ucf(tmp_path, ["A/a.avi 1"], ["A/b.avi"])
    lines(folder / "classInd.txt", *rows)
    with pytest.raises(ListError, match=f"classInd.txt.*{text}"):
        read_lists(folder)


def test_split_that_is_not_there_names_the_others(tmp_path: Path) -> None:
    folder = ucf(tmp_path, ["Lunges/a.avi 1"], ["Punch/b.avi"])
    lines(folder / "trainlist03.txt", "Lunges/a.avi 1")
    lines(folder / "testlist03.txt", "Punch/b.avi")
    lines(folder / "trainlist02.txt", "Lunges/a.avi 1")
    assert len(read_lists(folder, split=3).rows) == 2
    for split in (2, 4, 0, -1):
        with pytest.raises(ListError, match=f"split {split} is not there; expected one of these: 1, 3"):
            read_lists(folder, split=split)


def test_trainlist_without_class_ind(tmp_path: Path) -> None:
    (ucf(tmp_path, ["Lunges/a.avi 1"], ["Punch/b.avi"]) / "classInd.txt").unlink()
    with pytest.raises(ListError, match=r"trainlists without classInd\.txt"):
        read_lists(tmp_path)


@pytest.mark.parametrize("side", ["train", "test"])
def test_empty_list(tmp_path: Path, side: str) -> None:
    folder = ucf(tmp_path, ["Lunges/a.avi 1"], ["Punch/b.avi"])
    lines(folder / f"{side}list01.txt", "# nothing", "", "  ")
    with pytest.raises(ListError, match=rf"{side}list01\.txt: no entries; expected one video a line"):
        read_lists(folder)


def test_list_that_is_no_utf8_names_the_line(tmp_path: Path) -> None:
    folder = ucf(tmp_path, [], ["Punch/b.avi"])
    (folder / "trainlist01.txt").write_bytes(b"Lunges/a.avi 1\nLunges/\xe9.avi 1\n")
    with pytest.raises(ListError, match=r"trainlist01\.txt:2: not UTF-8"):
        read_lists(folder)


def test_list_that_is_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ListError, match=r"x\.csv: missing or not a regular file"):
        read_lists(tmp_path / "x.csv")


def test_duplicate_lines_are_one_entry_and_one_warning(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/a.avi", "Punch/b.avi")
    folder = ucf(tmp_path / "l", ["Lunges/a.avi 1"] * 3, ["Punch/b.avi", "./Punch/b.avi 2"])
    data = recognise_dataset(tmp_path / "r", lists=folder)
    assert len(data.entries) == 2
    assert data.warnings[0] == "3 duplicate lines of the lists are ignored"


def test_same_video_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    rows = [f"Lunges/{i:02}.avi" for i in range(12)]
    folder = ucf(tmp_path / "l", [f"{row} 1" for row in rows], rows)
    with pytest.raises(DataError, match=r"leak: 12 listed videos are in train and test: .*09\.avi, \.\.\.; keep") as e:
        recognise_dataset(touch(tmp_path / "r", *rows), lists=folder)
    assert "10.avi" not in str(e.value)


def test_same_group_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    train, test = "Lunges/v_Lunges_g08_c01.avi", "Lunges/v_Lunges_g08_c02.avi"
    folder = ucf(tmp_path / "l", [f"{train} 1", "Punch/v_Punch_g08_c01.avi 2"], [test])
    with pytest.raises(DataError, match=rf"leak: 1 UCF groups .*: group g08 of .* \({train} and {test}\); clips"):
        recognise_dataset(touch(tmp_path / "r", train, test, "Punch/v_Punch_g08_c01.avi"), lists=folder)


def test_missing_files_are_one_error(tmp_path: Path) -> None:
    rows = [f"Lunges/{i:02}.avi" for i in range(12)]
    folder = ucf(tmp_path / "l", [f"{row} 1" for row in rows], ["Punch/x.avi"])
    with pytest.raises(DataError, match=r"12 of 13 listed videos are missing in .*: Lunges/00.avi, .*/09.avi, \.\.\.;"):
        recognise_dataset(touch(tmp_path / "r", "Punch/x.avi"), lists=folder)


def test_missing_files_one_folder_further_down(tmp_path: Path) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match=r"one folder further down: give .*/r/UCF-101 as ROOT"):
        recognise_dataset(touch(tmp_path / "r", "UCF-101/Lunges/a.avi", "UCF-101/Punch/b.avi"), lists=folder)


def test_missing_files_under_a_folder_that_was_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.avi", "r/Punch/b.avi")
    (tmp_path / "r/Lunges").symlink_to(tmp_path / "far")
    folder = ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match="Lunges is left out: symlink outside ROOT"):
        recognise_dataset(tmp_path / "r", lists=folder)
    assert len(recognise_dataset(tmp_path / "r", lists=folder, follow_links=True).entries) == 2


def test_hidden_file_in_a_list_says_so(tmp_path: Path) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/.a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match=r"Lunges/\.a\.avi is hidden \(leading dot\)"):
        recognise_dataset(touch(tmp_path / "r", "Lunges/.a.avi", "Punch/b.avi"), lists=folder)


def test_listed_fifo_and_folder_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/a.avi", "Lunges/dir.avi/inner.avi", "Punch/b.avi")
    os.mkfifo(tmp_path / "r/Lunges/f.avi")
    rows = ["Lunges/a.avi 1", "Lunges/dir.avi 1", "Lunges/f.avi 1"]
    data = recognise_dataset(tmp_path / "r", lists=ucf(tmp_path / "l", rows, ["Punch/b.avi"]))
    assert [e.path for e in data.entries] == ["Lunges/a.avi", "Punch/b.avi"]
    assert data.left_out == (
        LeftOut("Lunges/dir.avi", "a folder, not a video"),
        LeftOut("Lunges/f.avi", "not a regular file (FIFO)"),
    )
    assert data.warnings[:2] == (
        "2 listed videos can't be used and are left out: Lunges/dir.avi, Lunges/f.avi",
        "1 videos in ROOT are in no list",
    )


def test_no_listed_video_can_be_used(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/dir.avi/inner.avi")
    with pytest.raises(DataError, match=r"none of 1 listed videos can be used: Lunges/dir\.avi: a folder, not a video"):
        recognise_dataset(tmp_path / "r", lists=lines(tmp_path / "l.csv", "Lunges/dir.avi,x"))


def test_unused_class_and_unlisted_videos_warn(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/a.avi", "Lunges/b.avi", "Punch/c.avi", "Punch/d.avi")
    data = recognise_dataset(tmp_path / "r", lists=ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Lunges/b.avi"]))
    assert data.warnings == ("2 videos in ROOT are in no list", "classes of the lists without a video (1): Punch")


def test_class_name_with_a_hash_is_no_comment(tmp_path: Path) -> None:
    folder = ucf(tmp_path, ["#yoga/a.avi 1", "#x"], ["#yoga/b.avi", "#Lunges/b.avi"], classes=("#yoga",))
    assert [row.path for row in read_lists(folder).rows] == ["#yoga/a.avi", "#yoga/b.avi"]


def test_same_group_of_two_name_classes_in_one_folder_is_no_leak(tmp_path: Path) -> None:
    rows = "sport/v_Run_g01_c01.avi", "sport/v_Jump_g01_c01.avi"
    file = lines(tmp_path / "l.csv", f"{rows[0]},sport,train", f"{rows[1]},sport,test")
    assert len(recognise_dataset(touch(tmp_path / "r", *rows), lists=file).entries) == 2


# ---- HMDB-51 lists


def test_hmdb_lists(tmp_path: Path) -> None:
    touch(
        tmp_path / "r", "brush_hair/#20_a_0.avi", "brush_hair/b.avi", "brush_hair/c.avi", "wave/d e.avi", "wave/f.avi"
    )
    lines(tmp_path / "l/wave_test_split2.txt", "d e.avi 1 ", "f.avi 2 ", end="\r\n")
    lines(tmp_path / "l/brush_hair_test_split2.txt", "\ufeff#20_a_0.avi 1 ", "# note", "", "b.avi 2 ", "c.avi 0 ")
    data = recognise_dataset(tmp_path / "r", lists=tmp_path / "l", split=2)
    assert (data.kind, data.classes, data.warnings) == ("hmdb51", ("brush_hair", "wave"), ())
    assert labels(data) == {
        "brush_hair/#20_a_0.avi": ("brush_hair", "train"),
        "brush_hair/b.avi": ("brush_hair", "test"),
        "wave/d e.avi": ("wave", "train"),
        "wave/f.avi": ("wave", "test"),
    }


@pytest.mark.parametrize("line", ["a.avi 3", "a.avi", "a.avi train", "../b/a.avi 1", "a 1", "1"])
def test_bad_hmdb_line(line: str) -> None:
    with pytest.raises(ListError, match=r"wave\.txt:2: .*expected '<video> <mark>', mark 1 train, 2 test, 0 unused"):
        list(parse_hmdb(f"ok.avi 1\n{line}\n", "wave.txt", "wave", 0))


def test_hmdb_split_and_class_file_missing(tmp_path: Path) -> None:
    lines(tmp_path / "a_test_split1.txt", "a.avi 1")
    lines(tmp_path / "b_test_split1.txt", "a.avi 1")
    lines(tmp_path / "b_test_split2.txt", "a.avi 1")
    with pytest.raises(ListError, match="split 3 is not there; expected one of these: 1, 2"):
        read_lists(tmp_path, split=3)
    with pytest.raises(ListError, match="split 2 has no file for a; expected one for each"):
        read_lists(tmp_path, split=2)

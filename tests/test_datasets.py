from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.datasets import Dataset, LeftOut, recognise
from pipelines.errors import DataError, ListError, UsageError
from pipelines.lists import is_video_name, parse_csv, parse_hmdb, parse_ucf, read_lists, ucf_group

ODD_NAMES = [
    "tai chi ü中.avi",
    "a\nb.avi",
    "#1.avi",
    "-rf.avi",
    "{x}.avi",
    "$(touch x).avi",
    "a,b\"c'.MP4",
    " lead.avi",
]


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def lines(file: Path, *rows: str, end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(row + end for row in rows).encode())
    return file


def ucf(folder: Path, train: list[str], test: list[str], classes: tuple[str, ...] = ("Lunges", "Punch")) -> Path:
    lines(folder / "classInd.txt", *(f"{i} {name}" for i, name in enumerate(classes, 1)))
    lines(folder / "trainlist01.txt", *train)
    lines(folder / "testlist01.txt", *test)
    return folder


def labels(data: Dataset) -> dict[str, tuple[str, str]]:
    return {entry.path: (data.classes[entry.label], entry.split) for entry in data.entries}


def split_of(data: Dataset) -> dict[str, str]:
    return {entry.path: entry.split for entry in data.entries}


# ---- the root and the walk


def test_missing_root_names_path_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/gone: .*No such file.*; expected a folder of videos, check the path"):
        recognise(tmp_path / "gone")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; expected the folder that holds the videos"):
        recognise(touch(tmp_path, "x.avi") / "x.avi")


def test_no_video_names_extensions_looked_for_and_seen(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.JPG", "a/2.txt", "a/README")
    with pytest.raises(DataError, match=r"no video file; looked for .*\.avi .*found \.jpg, \.txt, no extension;"):
        recognise(tmp_path)


def test_no_video_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/x.avi")
    with pytest.raises(DataError, match=r"no video file.*left out: a/x.avi: not a regular file \(FIFO\)"):
        recognise(tmp_path)


def test_every_extension_in_any_case(tmp_path: Path) -> None:
    ends = ["avi", "MP4", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "wmv", "flv", "ogv", "Ts", "m2ts", "3gp"]
    names = [f"A/{end}.{end}" for end in ends]
    data = recognise(touch(tmp_path, *names, "A/avi", "A/x.avi.txt"), val_fraction=0)
    assert [e.path for e in data.entries] == sorted(names)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_videos_and_classes(tmp_path: Path, name: str) -> None:
    folder = name.rpartition(".")[0]
    data = recognise(touch(tmp_path, f"{folder}/{name}"))
    assert labels(data) == {f"{folder}/{name}": (folder, "train")}


def test_hidden_names_are_passed_over_silently(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "A/x.avi", "A/._x.avi", ".cache/y.avi"))
    assert [e.path for e in data.entries] == ["A/x.avi"]
    assert data.left_out == ()


def test_special_files_are_left_out_without_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "A/x.avi")
    os.mkfifo(tmp_path / "A/fifo.avi")
    os.mkfifo(tmp_path / "A/other.txt")
    (tmp_path / "A/null.avi").symlink_to(os.devnull)
    monkeypatch.chdir(tmp_path)  # a socket's path is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("A/sock.avi")
        data = recognise(tmp_path, follow_links=True)
    assert data.left_out == (
        LeftOut("A/fifo.avi", "not a regular file (FIFO)"),
        LeftOut("A/null.avi", "not a regular file (device)"),
        LeftOut("A/sock.avi", "not a regular file (socket)"),
    )
    assert [e.path for e in data.entries] == ["A/x.avi"]


def test_folder_with_a_video_name_is_walked(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "A/x.avi/inner.avi"))
    assert [e.path for e in data.entries] == ["A/x.avi/inner.avi"]


def test_link_loop_ends(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    (tmp_path / "A/up").symlink_to("..")
    (tmp_path / "A/self.avi").symlink_to("self.avi")
    data = recognise(tmp_path)
    assert [e.path for e in data.entries] == ["A/x.avi"]
    assert data.left_out == (
        LeftOut("A/self.avi", "broken link"),
        LeftOut("A/up", "link to a folder that is walked already"),
    )


def test_real_folder_wins_over_a_link_that_sorts_first(tmp_path: Path) -> None:
    touch(tmp_path, "Zebra/x.avi", "Yak/y.avi")
    (tmp_path / "Aardvark").symlink_to("Zebra")
    assert recognise(tmp_path).classes == ("Yak", "Zebra")


def test_links_inside_root_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, ".store/x.avi", ".files/y.avi", "B/z.avi")
    (tmp_path / "A").symlink_to(".store")
    (tmp_path / "B/y.avi").symlink_to("../.files/y.avi")
    assert [e.path for e in recognise(tmp_path).entries] == ["A/x.avi", "B/y.avi", "B/z.avi"]


def test_links_outside_root_need_the_flag(tmp_path: Path) -> None:
    touch(tmp_path, "root/A/x.avi", "far/F/f.avi", "far/g.avi")
    (tmp_path / "root/B").symlink_to(tmp_path / "far/F")
    (tmp_path / "root/A/g.avi").symlink_to(tmp_path / "far/g.avi")
    reason = "symlink outside ROOT (--follow-links takes it)"
    data = recognise(tmp_path / "root")
    assert data.left_out == (LeftOut("A/g.avi", reason), LeftOut("B", reason))
    assert [e.path for e in data.entries] == ["A/x.avi"]
    data = recognise(tmp_path / "root", follow_links=True)
    assert [e.path for e in data.entries] == ["A/g.avi", "A/x.avi", "B/f.avi"]
    assert data.left_out == ()


def test_root_that_is_itself_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/A/x.avi")
    (tmp_path / "real/A/y.avi").symlink_to("x.avi")
    (tmp_path / "link").symlink_to("real")
    assert [e.path for e in recognise(tmp_path / "link").entries] == ["A/x.avi", "A/y.avi"]


def test_broken_link_to_a_class_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    (tmp_path / "B").symlink_to("unmounted")
    assert recognise(tmp_path).left_out == (LeftOut("B", "broken link"),)


def test_name_that_is_no_utf8_is_left_out_in_printable_form(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/A/\xff.avi", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert recognise(tmp_path).left_out == (LeftOut("A/\\xff.avi", "file name is not valid UTF-8"),)


def test_folder_that_cannot_be_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Deeper than PATH_MAX, a folder can be made step by step but not listed by its path: not even by root.
    touch(tmp_path, "A/x.avi")
    step = "d" * 250
    monkeypatch.chdir(tmp_path / "A")
    for _ in range(17):
        Path(step).mkdir()
        os.chdir(step)
    data = recognise(tmp_path)
    assert [(left.path[:10], left.reason) for left in data.left_out] == [("A/dddddddd", "unreadable folder")]
    assert [e.path for e in data.entries] == ["A/x.avi"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder; the PATH_MAX test stands in")
def test_folder_without_permission_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi", "B/y.avi")
    (tmp_path / "B").chmod(0)
    try:
        assert recognise(tmp_path).left_out == (LeftOut("B", "unreadable folder"),)
    finally:
        (tmp_path / "B").chmod(0o700)


# ---- folders


def test_folder_per_class(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "b/1.avi", "b/deep/2.avi", "A/3.avi", "stray.avi"), val_fraction=0)
    assert (data.kind, data.classes) == ("folders", ("A", "b"))
    assert labels(data) == {"A/3.avi": ("A", "train"), "b/1.avi": ("b", "train"), "b/deep/2.avi": ("b", "train")}
    assert data.left_out == (LeftOut("stray.avi", "not in a class folder"),)
    assert data.warnings == ("classes with only 1 video (1): A",)


def test_only_loose_videos_explains_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 videos, none in a class folder \(a.avi, b.avi\); expected ROOT/<class>/"):
        recognise(touch(tmp_path, "a.avi", "b.avi"))


def test_one_class_asks_whether_root_is_right(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "UCF-101/Lunges/a.avi", "UCF-101/Punch/b.avi"))
    assert data.warnings == ("only one class, UCF-101: is ROOT the folder that holds the class folders?",)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("training", "Validation"), ("train", "test")),
        (("train", "val", "test"), ("train", "val", "test")),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    for folder in folders:
        touch(tmp_path, f"{folder}/A/1.avi", f"{folder}/B/sub/2.avi", f"{folder}/loose.avi")
    data = recognise(touch(tmp_path, "extra/3.avi"))
    assert (data.kind, data.classes) == ("folders", ("A", "B"))
    for folder, split in zip(folders, splits, strict=True):
        assert labels(data)[f"{folder}/A/1.avi"] == ("A", split)
        assert labels(data)[f"{folder}/B/sub/2.avi"] == ("B", split)
    assert LeftOut("extra/3.avi", "beside the folders of the splits") in data.left_out
    assert LeftOut(f"{folders[0]}/loose.avi", "not in a class folder") in data.left_out
    assert data.warnings == ()


def test_val_is_the_test_split_where_test_has_no_classes(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "train/A/1.avi", "val/A/2.avi", "test/unlabelled.avi"))
    assert split_of(data) == {"train/A/1.avi": "train", "val/A/2.avi": "test"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "train/1.avi", "car/2.avi"))
    assert data.classes == ("car", "train")


def test_only_a_train_folder_warns(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "train/A/1.avi", "train/B/2.avi"))
    assert "no folder test or val beside train: there is nothing to evaluate on" in data.warnings


def test_split_folders_without_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none in a class folder"):
        recognise(touch(tmp_path, "train/1.avi", "test/2.avi"))


def test_class_without_a_train_video_warns(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "train/A/1.avi", "test/A/2.avi", "test/B/3.avi", "test/B/4.avi"))
    assert data.warnings == ("classes without a train video (1): B",)


# ---- the held-out share


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_fraction_outside_its_range(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="expected a share of each class, 0 <= val_fraction < 1"):
        recognise(touch(tmp_path, "A/1.avi"), val_fraction=fraction)


@pytest.mark.parametrize(
    ("size", "fraction", "held"), [(10, 0.2, 2), (2, 0.01, 1), (1, 0.5, 0), (10, 0.0, 0), (3, 0.99, 2), (8, 0.3, 2)]
)
def test_share_held_out_of_single_videos(tmp_path: Path, size: int, fraction: float, held: int) -> None:
    data = recognise(touch(tmp_path, *(f"A/{i}.avi" for i in range(size))), val_fraction=fraction)
    assert list(split_of(data).values()).count("test") == held
    assert len(data.entries) == size


def test_held_out_videos_stay_where_others_come_and_go(tmp_path: Path) -> None:
    few = split_of(recognise(touch(tmp_path, *(f"A/{i}.avi" for i in range(10)))))
    more = split_of(recognise(touch(tmp_path, *(f"B/{i}.avi" for i in range(10)))))
    assert {path: more[path] for path in few} == few
    # Written down: another machine or version must hold out the same videos.
    assert [path for path, split in few.items() if split == "test"] == ["A/0.avi", "A/6.avi"]


def test_ucf_groups_are_held_out_whole(tmp_path: Path) -> None:
    paths = [f"Punch/v_Punch_g{g:02}_c{c:02}.avi" for g in range(1, 8) for c in range(1, 4)]
    sides: dict[str, set[str]] = {}
    for path, split in split_of(recognise(touch(tmp_path, *paths))).items():
        sides.setdefault(path[:17], set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {"test"} for side in sides.values()) == 2  # round(0.2 * 21) = 4 videos: two groups of three


def test_class_of_one_group_is_not_held_out(tmp_path: Path) -> None:
    data = recognise(touch(tmp_path, "P/v_P_g01_c01.avi", "P/v_P_g01_c02.avi", "Q/1.avi", "Q/2.avi"))
    assert {s for p, s in split_of(data).items() if p.startswith("P/")} == {"train"}


# ---- UCF-101 lists


def test_ucf_lists_with_crlf_mark_blanks_and_comments(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/v_Lunges_g01_c01.avi", "Punch/a b.avi", "Punch/v_Punch_g02_c01.avi")
    folder = ucf(tmp_path / "l", [], [])
    lines(folder / "classInd.txt", "\ufeff1 Lunges ", "", "# note", "2 Punch", end="\r\n")
    lines(folder / "trainlist01.txt", "\ufeffLunges/v_Lunges_g01_c01.avi 1  ", "", "#Punch/gone.avi 2", end="\r\n")
    lines(folder / "testlist01.txt", "./Punch/a b.avi", "Punch/v_Punch_g02_c01.avi 2 ", "  ", end="\r\n")
    data = recognise(tmp_path / "r", lists=folder)
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
        ("Lunges/a.txt 1", "is no video file name; expected one of .3gp .avi"),
        ("7", "'7' is no video file name"),
    ],
)
def test_bad_ucf_line_names_file_line_and_value(tmp_path: Path, line: str, text: str) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/ok.avi 1", "", line], ["Punch/x.avi"])
    with pytest.raises(ListError, match=rf"l/trainlist01\.txt:3: .*{text}"):
        recognise(touch(tmp_path / "r", "Lunges/ok.avi"), lists=folder)


def test_test_list_label_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"testlist01\.txt:1: label 1 is not Punch"):
        read_lists(ucf(tmp_path, ["Lunges/a.avi 1"], ["Punch/x.avi 1"]))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["0 A", "1 B"], "2 classes; expected the numbers 1..2, each once"),
        (["1 A", "3 B"], "expected the numbers 1..2"),
        (["1 A", "1 B"], ":2: '1 B' repeats a number or a class"),
        (["1 A", "2 A"], ":2: '2 A' repeats a number or a class"),
        (["A 1"], ":1: 'A 1'; expected '<number> <class>'"),
        (["1"], ":1: '1'; expected '<number> <class>'"),
        ([], "0 classes; expected the numbers 1..1"),
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
    data = recognise(tmp_path / "r", lists=folder)
    assert len(data.entries) == 2
    assert data.warnings[0] == "3 duplicate lines of the lists are ignored"


def test_same_video_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    rows = [f"Lunges/{i:02}.avi" for i in range(12)]
    folder = ucf(tmp_path / "l", [f"{row} 1" for row in rows], rows)
    with pytest.raises(DataError, match=r"leak: 12 listed videos are in train and test: .*09\.avi, \.\.\.; keep") as e:
        recognise(touch(tmp_path / "r", *rows), lists=folder)
    assert "10.avi" not in str(e.value)


def test_same_group_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    train, test = "Lunges/v_Lunges_g08_c01.avi", "Lunges/v_Lunges_g08_c02.avi"
    folder = ucf(tmp_path / "l", [f"{train} 1", "Punch/v_Punch_g08_c01.avi 2"], [test])
    with pytest.raises(DataError, match=r"leak: 1 UCF groups .*: group g08 of Lunges in train and test; clips of one"):
        recognise(touch(tmp_path / "r", train, test, "Punch/v_Punch_g08_c01.avi"), lists=folder)


def test_missing_files_are_one_error(tmp_path: Path) -> None:
    rows = [f"Lunges/{i:02}.avi" for i in range(12)]
    folder = ucf(tmp_path / "l", [f"{row} 1" for row in rows], ["Punch/x.avi"])
    with pytest.raises(DataError, match=r"12 of 13 listed videos are missing in .*: Lunges/00.avi, .*/09.avi, \.\.\.;"):
        recognise(touch(tmp_path / "r", "Punch/x.avi"), lists=folder)


def test_missing_files_one_folder_further_down(tmp_path: Path) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match=r"one folder further down: give .*/r/UCF-101 as ROOT"):
        recognise(touch(tmp_path / "r", "UCF-101/Lunges/a.avi", "UCF-101/Punch/b.avi"), lists=folder)


def test_missing_files_under_a_folder_that_was_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.avi", "r/Punch/b.avi")
    (tmp_path / "r/Lunges").symlink_to(tmp_path / "far")
    folder = ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match="Lunges is left out: symlink outside ROOT"):
        recognise(tmp_path / "r", lists=folder)
    assert len(recognise(tmp_path / "r", lists=folder, follow_links=True).entries) == 2


def test_hidden_file_in_a_list_says_so(tmp_path: Path) -> None:
    folder = ucf(tmp_path / "l", ["Lunges/.a.avi 1"], ["Punch/b.avi"])
    with pytest.raises(DataError, match=r"Lunges/\.a\.avi is hidden \(leading dot\)"):
        recognise(touch(tmp_path / "r", "Lunges/.a.avi", "Punch/b.avi"), lists=folder)


def test_listed_fifo_and_folder_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/a.avi", "Lunges/dir.avi/inner.avi", "Punch/b.avi")
    os.mkfifo(tmp_path / "r/Lunges/f.avi")
    rows = ["Lunges/a.avi 1", "Lunges/dir.avi 1", "Lunges/f.avi 1"]
    data = recognise(tmp_path / "r", lists=ucf(tmp_path / "l", rows, ["Punch/b.avi"]))
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
        recognise(tmp_path / "r", lists=lines(tmp_path / "l.csv", "Lunges/dir.avi,x"))


def test_unused_class_and_unlisted_videos_warn(tmp_path: Path) -> None:
    touch(tmp_path / "r", "Lunges/a.avi", "Lunges/b.avi", "Punch/c.avi", "Punch/d.avi")
    data = recognise(tmp_path / "r", lists=ucf(tmp_path / "l", ["Lunges/a.avi 1"], ["Lunges/b.avi"]))
    assert data.warnings == ("2 videos in ROOT are in no list", "classes of the lists without a video (1): Punch")


def test_class_name_with_a_hash_is_no_comment(tmp_path: Path) -> None:
    folder = ucf(tmp_path, ["#yoga/a.avi 1", "#x"], ["#yoga/b.avi", "#Lunges/b.avi"], classes=("#yoga",))
    assert [row.path for row in read_lists(folder).rows] == ["#yoga/a.avi", "#yoga/b.avi"]


def test_same_group_of_two_name_classes_in_one_folder_is_no_leak(tmp_path: Path) -> None:
    rows = "sport/v_Run_g01_c01.avi", "sport/v_Jump_g01_c01.avi"
    file = lines(tmp_path / "l.csv", f"{rows[0]},sport,train", f"{rows[1]},sport,test")
    assert len(recognise(touch(tmp_path / "r", *rows), lists=file).entries) == 2


# ---- HMDB-51 lists


def test_hmdb_lists(tmp_path: Path) -> None:
    touch(
        tmp_path / "r", "brush_hair/#20_a_0.avi", "brush_hair/b.avi", "brush_hair/c.avi", "wave/d e.avi", "wave/f.avi"
    )
    lines(tmp_path / "l/wave_test_split2.txt", "d e.avi 1 ", "f.avi 2 ", end="\r\n")
    lines(tmp_path / "l/brush_hair_test_split2.txt", "\ufeff#20_a_0.avi 1 ", "# note", "", "b.avi 2 ", "c.avi 0 ")
    data = recognise(tmp_path / "r", lists=tmp_path / "l", split=2)
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
    with pytest.raises(ListError, match="split 2 has no file for a; expected one each"):
        read_lists(tmp_path, split=2)


# ---- CSV


def test_csv_with_header_names_and_splits(tmp_path: Path) -> None:
    touch(tmp_path / "r", "1.avi", "d/2.avi", "3.avi", "4.avi", "5.avi")
    rows = [
        "\ufeffPath,label,split",
        "1.avi,wave,training",
        '"d/2.avi",run,Validation ',
        "# a, note",
        "",
        "3.avi, wave,",
    ]
    rows += ["4.avi,run,train", f"{tmp_path}/r/5.avi,run,test"]
    data = recognise(tmp_path / "r", lists=lines(tmp_path / "l.csv", *rows, end="\r\n"))
    assert (data.kind, data.classes, data.warnings) == ("csv", ("run", "wave"), ())
    assert labels(data) == {
        "1.avi": ("wave", "train"),
        "3.avi": ("wave", "train"),
        "4.avi": ("run", "train"),
        "5.avi": ("run", "test"),
        "d/2.avi": ("run", "val"),
    }


def test_csv_val_is_test_where_there_is_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "1.avi", "2.avi")
    data = recognise(tmp_path, lists=lines(tmp_path / "l.csv", "1.avi,a,train", "2.avi,a,val"))
    assert split_of(data) == {"1.avi": "train", "2.avi": "test"}


def test_csv_without_splits_holds_out_a_share(tmp_path: Path) -> None:
    names = [f"{i}.avi" for i in range(10)]
    file = lines(tmp_path / "l.tsv", *(f"{name}\trun" for name in names))
    assert list(split_of(recognise(touch(tmp_path, *names), lists=file)).values()).count("test") == 2


def test_csv_integer_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.avi", "2.avi")
    file = lines(tmp_path / "l.csv", "1.avi,0", "2.avi,2")
    data = recognise(tmp_path, lists=file, val_fraction=0)
    assert data.classes == ("0", "1", "2")
    assert "classes of the lists without a video (1): 1" in data.warnings
    lines(tmp_path / "classes.txt", "# by label", "run", "sit down", "wave", end="\r\n")
    assert labels(recognise(tmp_path, lists=file)) == {"1.avi": ("run", "train"), "2.avi": ("wave", "train")}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["a.avi,0", "b.avi,-1"], "2: label -1 is out of range; CSV labels are 0-based"),
        (["a.avi,0", "b.avi,999999999"], "2: label 999999999 is out of range"),
        (["a.avi,0", "b.avi,1.5"], "2: label '1.5' is not an integer, others are; expected one kind"),
        (["a.avi,x,train,1"], "1: 4 cells; expected path,label"),
        (["a.avi"], "1: 1 cells; expected path,label"),
        (["a.avi,x,dev"], "1: split 'dev'; expected one of train, val, test"),
        (["a.avi,"], "1: class ''; expected a name"),
        (["path,split", "a.avi,x"], "1: header 'path,split'; expected path,label"),
        (["../a.avi,x"], r"1: \.\./a.avi is outside the root"),
        (["/etc/a.avi,x"], "1: /etc/a.avi is outside the root"),
        (["a b 0"], "1: 1 cells"),
        (['"a.avi,x'], "1: unexpected end of data; expected cells quoted as in RFC 4180"),
        (['"a', 'b.avi",x', "c,x"], "3: 'c' is no video file name"),
    ],
)
def test_bad_csv_names_the_line(tmp_path: Path, rows: list[str], text: str) -> None:
    with pytest.raises(ListError, match=rf"l\.csv:{text}"):
        recognise(touch(tmp_path, "a.avi"), lists=lines(tmp_path / "l.csv", *rows))


@pytest.mark.parametrize("rows", [[], ["path,label"], ["# only", ""]])
def test_empty_csv(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(ListError, match=r"l\.csv: no entries; expected lines of path,label"):
        read_lists(lines(tmp_path / "l.csv", *rows))


def test_csv_columns_follow_the_header() -> None:
    classes, rows = parse_csv("video,split,label,fps\na.avi,test,run,25\n", "x.csv")
    assert classes == ("run",)
    assert rows[0][:3] == ("a.avi", 0, "test")


def test_csv_class_not_in_classes_txt(tmp_path: Path) -> None:
    lines(tmp_path / "classes.txt", "run", "7")
    with pytest.raises(ListError, match=r"l\.csv:2: class 'sit'; expected a class of classes\.txt"):
        read_lists(lines(tmp_path / "l.csv", "a.avi,7", "b.avi,sit"))
    with pytest.raises(ListError, match=r"label 2 is out of range; CSV labels are 0-based: expected 0\.\.1"):
        read_lists(lines(tmp_path / "l.csv", "a.avi,2"))
    lines(tmp_path / "classes.txt", "run", "run")
    with pytest.raises(ListError, match=r"classes\.txt: a class is named twice"):
        read_lists(tmp_path / "l.csv")


def test_two_labels_name_both_lines(tmp_path: Path) -> None:
    file = lines(tmp_path / "l.csv", "a.avi,run", "b.avi,run", "./a.avi,sit")
    with pytest.raises(ListError, match=r"l\.csv:3: a.avi is 'sit' here and 'run' at .*l\.csv:1; expected one label"):
        recognise(touch(tmp_path, "a.avi", "b.avi"), lists=file)


def test_split_number_needs_numbered_lists(tmp_path: Path) -> None:
    touch(tmp_path, "A/a.avi")
    with pytest.raises(UsageError, match="a CSV names its splits in column 3"):
        recognise(tmp_path, lists=lines(tmp_path / "l.csv", "A/a.avi,x"), split=1)
    with pytest.raises(UsageError, match="split 1 without lists"):
        recognise(tmp_path, split=1)


def test_unknown_forms_of_lists(tmp_path: Path) -> None:
    touch(tmp_path, "r/A/a.avi", "l/readme.txt", "list.txt")
    for lists in ("l", "list.txt", "gone"):
        with pytest.raises(ListError, match=r"expected a folder with classInd\.txt .*HMDB-51.*\.csv/\.tsv file"):
            recognise(tmp_path / "r", lists=tmp_path / lists)
    with pytest.raises(ListError, match=r"gone\.csv: missing"):
        recognise(tmp_path / "r", lists=tmp_path / "gone.csv")


# ---- properties, speed, real lists

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
STEMS = st.text(CHARACTERS | st.sampled_from(" #{}-\"',\t"), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(STEMS, st.sampled_from(["run", "sit down", "#", "ü"]), min_size=1, max_size=8))
def test_csv_gives_back_any_name(videos: dict[str, str]) -> None:
    paths = {f"d/{stem}.avi": name for stem, name in videos.items()}
    for delimiter in ",\t":
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter).writerows(paths.items())
        classes, rows = parse_csv(file.getvalue(), "x.csv", delimiter)
        assert {row.path: classes[row.label] for row in rows} == paths


@settings(max_examples=200, deadline=None)
@given(st.lists(STEMS, min_size=1, max_size=8), st.sampled_from(["Lunges", "#a b", "{}"]), st.sampled_from("\n\r"))
def test_ucf_and_hmdb_lists_give_back_any_name(stems: list[str], name: str, end: str) -> None:
    assume(not any("\n" in stem for stem in stems))
    end = "\r\n" if end == "\r" else end
    paths = [f"{name}/{stem}.avi" for stem in stems]
    for split, mark in (("train", " 1"), ("test", ""), ("test", " 1")):
        rows = parse_ucf("".join(f"{path}{mark}{end}" for path in paths), "x", {name: 0}, split)
        assert [row.path for row in rows] == paths
    text = "".join(f"x{stem}.avi 2 {end}" for stem in stems)
    assert [row.path for row in parse_hmdb(text, "x", name, 0)] == [f"{name}/x{stem}.avi" for stem in stems]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["avi", ".avi", ".AVI", ".txt", ""]))
def test_any_text_is_rows_or_a_list_error(text: str, end: str) -> None:
    with contextlib.suppress(ListError):
        parse_csv(f"{text}{end}", "x")
    with contextlib.suppress(ListError):
        list(parse_ucf(f"{text}{end}", "x", {"a": 0}, "test"))


def test_names_of_videos_and_groups() -> None:
    assert is_video_name("a/b.MpEg")
    assert not is_video_name("avi")
    assert not is_video_name("x.avi/y")
    assert ucf_group("L/v_Hand_Stand_g08_c01.avi") == ("Hand_Stand", "g08")
    assert ucf_group("L/v_Lunges_g08.avi") is None


def test_large_lists_are_checked_without_a_stat_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "r", "A/0.avi")
    file = lines(tmp_path / "l.csv", *(f"A/{i}.avi,run" for i in range(100_000)))
    calls: list[Path] = []
    original = Path.stat

    def counted(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        calls.append(self)
        return original(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", counted)
    start = time.perf_counter()
    with pytest.raises(DataError, match="99999 of 100000 listed videos are missing"):
        recognise(tmp_path / "r", lists=file)
    assert len(calls) < 50
    assert time.perf_counter() - start < 30  # about 1 s; a limit for a busy machine


@pytest.mark.real
def test_real_clips_with_their_lists(real_clips: Path) -> None:
    data = recognise(real_clips / "UCF-101", lists=real_clips / "ucfTrainTestlist", split=1)
    splits = [entry.split for entry in data.entries]
    assert (splits.count("train"), splits.count("test"), len(data.classes)) == (64, 32, 8)
    assert (data.left_out, data.warnings) == ((), ())


@pytest.mark.real
@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_official_lists(real_clips: Path, split: int, train: int, test: int) -> None:
    listed = read_lists(real_clips / "ucf101_official", split=split)
    splits = [row.split for row in listed.rows]
    assert (len(listed.classes), splits.count("train"), splits.count("test")) == (101, train, test)


@pytest.mark.real
def test_official_lists_on_a_part_of_the_videos(real_clips: Path) -> None:
    with pytest.raises(DataError, match=r"13224 of 13320 listed videos are missing in .*_g01_c01\.avi, .*, \.\.\.;"):
        recognise(real_clips / "UCF-101", lists=real_clips / "ucf101_official")


@pytest.mark.real
def test_real_clips_by_their_folders(real_clips: Path) -> None:
    data = recognise(real_clips / "UCF-101")
    groups: dict[tuple[int, object], set[str]] = {}
    for entry in data.entries:
        groups.setdefault((entry.label, ucf_group(entry.path)), set()).add(entry.split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert {entry.label for entry in data.entries if entry.split == "test"} == set(range(8))

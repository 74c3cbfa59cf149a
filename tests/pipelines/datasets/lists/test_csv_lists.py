from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layouts import labels, lines, split_of, touch

from pipelines.datasets.lists.csv_lists import parse_csv
from pipelines.datasets.lists.forms import read_lists
from pipelines.datasets.lists.hmdb_lists import parse_hmdb
from pipelines.datasets.lists.ucf_lists import parse_ucf
from pipelines.datasets.recognition import recognise_dataset
from pipelines.datasets.video_files import is_video_name, ucf_group
from pipelines.errors import DataError, ListError, UsageError

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
    data = recognise_dataset(tmp_path / "r", lists=lines(tmp_path / "l.csv", *rows, end="\r\n"))
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
    data = recognise_dataset(tmp_path, lists=lines(tmp_path / "l.csv", "1.avi,a,train", "2.avi,a,val"))
    assert split_of(data) == {"1.avi": "train", "2.avi": "test"}


def test_csv_without_splits_holds_out_a_share(tmp_path: Path) -> None:
    names = [f"{i}.avi" for i in range(10)]
    file = lines(tmp_path / "l.tsv", *(f"{name}\trun" for name in names))
    assert list(split_of(recognise_dataset(touch(tmp_path, *names), lists=file)).values()).count("test") == 2


def test_csv_integer_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.avi", "2.avi")
    file = lines(tmp_path / "l.csv", "1.avi,0", "2.avi,2")
    data = recognise_dataset(tmp_path, lists=file, val_fraction=0)
    assert data.classes == ("0", "1", "2")
    assert "classes of the lists without a video (1): 1" in data.warnings
    lines(tmp_path / "classes.txt", "# by label", "run", "sit down", "wave", end="\r\n")
    assert labels(recognise_dataset(tmp_path, lists=file)) == {"1.avi": ("run", "train"), "2.avi": ("wave", "train")}


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
        recognise_dataset(touch(tmp_path, "a.avi"), lists=lines(tmp_path / "l.csv", *rows))


@pytest.mark.parametrize("rows", [[], ["path,label"], ["# only", ""]])
def test_empty_csv(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(ListError, match=r"l\.csv: no entries; expected lines of path,label"):
        read_lists(lines(tmp_path / "l.csv", *rows))


def test_csv_columns_follow_the_header(tmp_path: Path) -> None:
    listed = read_lists(lines(tmp_path / "l.csv", "video,split,label,fps", "a.avi,test,run,25"))
    assert listed.classes == ("run",)
    assert listed.rows[0][:3] == ("a.avi", 0, "test")


@pytest.mark.parametrize(
    ("rows", "splits"),
    [
        (["path,label,scene", "a.avi,run,s4", "b.avi,sit,s5"], ["", ""]),
        (["path,label,scene", "a.avi,run,train", "b.avi,sit,s5"], ["", ""]),
        (["path,label,mode", "a.avi,run,train", "b.avi,sit,test"], ["train", "test"]),
        (["path,label,fps,subset", "a.avi,run,25,train", "b.avi,sit,25,test"], ["train", "test"]),
        (["path,label,", "a.avi,run,test", "b.avi,sit,"], ["test", "train"]),
        (["path,label", "a.avi,run", "b.avi,sit"], ["", ""]),
    ],
)
def test_a_third_column_is_a_split_by_its_name_or_its_cells(tmp_path: Path, rows: list[str], splits: list[str]) -> None:
    listed = parse_csv("\n".join(rows), "l.csv")
    assert [line.split for line in listed] == splits


def test_a_mistyped_group_is_not_taken_for_a_split(tmp_path: Path) -> None:
    file = lines(tmp_path / "l.csv", "path,label,scene", "a.avi,run,s4", "b.avi,run,s4")
    with pytest.raises(UsageError, match=r"^group 'scen' matches none of 2 paths.* the name of a column of CSV lists"):
        recognise_dataset(touch(tmp_path, "a.avi", "b.avi"), lists=file, group="scen")


@pytest.mark.parametrize("head", ["split", "Subset", "set", "partition"])
def test_a_word_that_is_no_split_in_a_column_of_splits_is_said(tmp_path: Path, head: str) -> None:
    with pytest.raises(ListError, match=r"^l\.csv:2: split 's4'; expected one of train, val, test"):
        parse_csv(f"path,label,{head}\na.avi,run,s4\n", "l.csv")


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
        recognise_dataset(touch(tmp_path, "a.avi", "b.avi"), lists=file)


def test_split_number_needs_numbered_lists(tmp_path: Path) -> None:
    touch(tmp_path, "A/a.avi")
    with pytest.raises(UsageError, match="a CSV names its splits in column 3"):
        recognise_dataset(tmp_path, lists=lines(tmp_path / "l.csv", "A/a.avi,x"), split=1)
    with pytest.raises(UsageError, match="split 1 without lists"):
        recognise_dataset(tmp_path, split=1)


def test_unknown_forms_of_lists(tmp_path: Path) -> None:
    touch(tmp_path, "r/A/a.avi", "l/readme.txt", "list.txt")
    for lists in ("l", "list.txt", "gone"):
        with pytest.raises(ListError, match=r"expected a folder with classInd\.txt .*HMDB-51.*\.csv/\.tsv file"):
            recognise_dataset(tmp_path / "r", lists=tmp_path / lists)
    with pytest.raises(ListError, match=r"gone\.csv: missing"):
        recognise_dataset(tmp_path / "r", lists=tmp_path / "gone.csv")


# ---- properties, speed, real lists

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
STEMS = st.text(CHARACTERS | st.sampled_from(" #{}-\"',\t"), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(STEMS, st.sampled_from(["run", "sit down", "#", "ü"]), min_size=1, max_size=8))
def test_csv_gives_back_any_name(videos: dict[str, str]) -> None:
    paths = {f"d/{stem}.avi": name for stem, name in videos.items()}
    for delimiter in ",;\t":
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter).writerows(paths.items())
        assert {line.path: line.label for line in parse_csv(file.getvalue(), "x.csv", delimiter)} == paths


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
    with pytest.raises(DataError, match="99999 of 100000 listed videos are missing"):
        recognise_dataset(tmp_path / "r", lists=file)
    assert len(calls) < 50


@pytest.mark.real
def test_real_clips_with_their_lists(real_clips: Path) -> None:
    data = recognise_dataset(real_clips / "UCF-101", lists=real_clips / "ucfTrainTestlist", split=1)
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
        recognise_dataset(real_clips / "UCF-101", lists=real_clips / "ucf101_official")


@pytest.mark.real
def test_real_clips_by_their_folders(real_clips: Path) -> None:
    data = recognise_dataset(real_clips / "UCF-101")
    groups: dict[tuple[int, object], set[str]] = {}
    for entry in data.entries:
        groups.setdefault((entry.label, ucf_group(entry.path)), set()).add(entry.split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert {entry.label for entry in data.entries if entry.split == "test"} == set(range(8))

"""Lists of ``path label``, as mmaction2, PaddleVideo, PySlowFast and pytorchvideo have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import labels, lines, touch, videos

from pipelines.datasets.lists.text_lists import parse_text
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError, UsageError
from pipelines.index.video_index import VideoIndex

Rows = dict[str, tuple[str, str]]


def indexed(index: VideoIndex) -> Rows:
    records = [index[i] for i in range(len(index))]
    return {record.path: (index.classes[record.label], record.split) for record in records}


def test_mmaction2_kinetics_with_a_folder_of_videos_for_each_split(tmp_path: Path) -> None:
    listed = {"train": ("abseiling/a 1.mp4", "yoga/y1.mp4"), "val": ("abseiling/a 2.mp4", "yoga/y2.mp4")}
    for side, paths in listed.items():
        videos(tmp_path / "r", *(f"videos_{side}/{path}" for path in paths))
        rows = [f"{path} {label}" for label, path in enumerate(paths)]
        lines(tmp_path / f"l/kinetics400_{side}_list_videos.txt", *rows)
        frames = [f"{path[:-4]} 300 {label}" for label, path in enumerate(paths)]
        lines(tmp_path / f"l/kinetics400_{side}_list_rawframes.txt", *frames)
    index = VideoIndex.build(tmp_path / "r", lists=tmp_path / "l", workers=0)
    assert (index.kind, index.classes) == ("text list", ("abseiling", "yoga"))
    assert indexed(index) == {
        "videos_train/abseiling/a 1.mp4": ("abseiling", "train"),
        "videos_train/yoga/y1.mp4": ("yoga", "train"),
        "videos_val/abseiling/a 2.mp4": ("abseiling", "test"),
        "videos_val/yoga/y2.mp4": ("yoga", "test"),
    }
    assert index.warnings[0] == (
        f"{tmp_path}/l/kinetics400_train_list_videos.txt: videos_train/ was put before its paths, so that they lead to "
        "the videos in ROOT"
    )


def test_paddlevideo_ucf_with_numbered_splits(tmp_path: Path) -> None:
    paths = [f"{name}/v_{name}_g0{group}_c01.avi" for name in ("Lunges", "Punch") for group in (1, 2)]
    videos(tmp_path / "UCF-101", *paths)
    for number, train in ((1, "g01"), (2, "g02")):
        for side in ("train", "val"):
            rows = [
                f"./data/ucf101/videos/{p} {i // 2}" for i, p in enumerate(paths) if (train in p) == (side == "train")
            ]
            lines(tmp_path / f"l/ucf101_{side}_split_{number}_videos.txt", *rows, end="\r\n")
    for number, train in ((None, "g01"), (1, "g01"), (2, "g02")):
        index = VideoIndex.build(tmp_path / "UCF-101", lists=tmp_path / "l", split=number, workers=0)
        assert index.lists_split == (number or 1)
        assert indexed(index) == {p: (p[: p.index("/")], "train" if train in p else "test") for p in paths}
        assert "_train_split_" in index.warnings[0]
        assert "data/ucf101/videos/ was taken off its paths" in index.warnings[0]
    with pytest.raises(ListError, match="split 3 is not there; expected one of these: 1, 2"):
        VideoIndex.build(tmp_path / "UCF-101", lists=tmp_path / "l", split=3, workers=0)


@pytest.mark.parametrize("prefix", ["", "/home/somebody/k400/", "{root}/", "D:\\k400\\"])
def test_pyslowfast_csvs_with_spaces_for_commas(tmp_path: Path, prefix: str) -> None:
    videos(tmp_path / "r", "a, b/1.mp4", "a, b/2.mp4", "c/3.mp4", "c/4.mp4")
    start = prefix.format(root=tmp_path / "r")
    rows = [f"{start}{path}" for path in ("a, b/1.mp4 0", "c/3.mp4 1", "a, b/2.mp4 0", "c/4.mp4 1")]
    if "\\" in prefix:
        rows = [row.replace("/", "\\") for row in rows]
    lines(tmp_path / "l/train.csv", *rows[:2])
    lines(tmp_path / "l/val.csv", *rows[2:])
    lines(tmp_path / "l/test.csv", *rows[2:])  # PySlowFast tests on a copy of val.csv
    index = VideoIndex.build(tmp_path / "r", lists=tmp_path / "l", workers=0)
    assert indexed(index) == {
        "a, b/1.mp4": ("a, b", "train"),
        "a, b/2.mp4": ("a, b", "test"),
        "c/3.mp4": ("c", "train"),
        "c/4.mp4": ("c", "test"),
    }
    moved = [text for text in index.warnings if "taken off" in text]
    assert len(moved) == (2 if prefix and "{" not in prefix else 0)
    assert "the lists of val and test are the same: taken as test" in index.warnings


def test_pytorchvideo_list_without_a_split_is_held_out(tmp_path: Path) -> None:
    names = [f"v{i}.mp4" for i in range(10)]
    videos(tmp_path / "r", *names)
    file = lines(tmp_path / "all.txt", *(f"{name} {i % 2}" for i, name in enumerate(names)))
    index = VideoIndex.build(tmp_path / "r", lists=file, workers=0)
    assert (index.classes, index.warnings) == (("0", "1"), ())
    assert [split for _, split in indexed(index).values()].count("test") == 2
    with pytest.raises(UsageError, match=r"split 1 with .*all\.txt: it has no numbers; leave split out"):
        VideoIndex.build(tmp_path / "r", lists=file, split=1, workers=0)


def test_one_list_of_several_says_that_the_others_are_not_read(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "1.mp4", "2.mp4")
    train = lines(tmp_path / "l/train.list", "1.mp4 0", "2.mp4 0")
    assert not [text for text in recognise_dataset(root, lists=train).warnings if "held out" in text]
    lines(tmp_path / "l/val.list", "2.mp4 0")
    assert (
        "videos of train.list itself are held out for testing; to use val.list beside it, give their folder, "
        f"{train.parent}"
    ) in recognise_dataset(root, lists=train).warnings


def test_comments_header_blanks_and_tabs(tmp_path: Path) -> None:
    rows = ["\ufeffpath label", "# note", "", "  a b.mp4 \t 0 ", "#clap.mp4\t1", "#x y"]
    root = touch(tmp_path / "r", "a b.mp4", "#clap.mp4")
    data = recognise_dataset(root, lists=lines(tmp_path / "l.txt", *rows, end="\r\n"), val_fraction=0)
    assert labels(data) == {"a b.mp4": ("0", "train"), "#clap.mp4": ("1", "train")}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["a.mp4 0", "b.mp4 -1"], "2: label -1 is out of range; list labels are 0-based: expected 0.*leave it out"),
        (["a.mp4 0", "b.mp4 walk"], "2: label 'walk' of b.mp4 is not an integer; expected '<path of a video> <label>'"),
        (["a.mp4 0", "b.mp4 1.0"], "2: label '1.0' of b.mp4 is not an integer"),
        (["a.mp4 0", "b c.mp4"], "2: no label after b c.mp4; expected '<path of a video> <label>'"),
        (["a.mp4 0", "", "b.mp4 1 4"], "3: several words after the path in 'b.mp4 1 4'; expected .*one label a video"),
        (["a 163 0", "b c 9 1"], "1: 'a 163 0' names frames .*; expected '<path of a video> <label>': give the list"),
        (["v 1 163 0"], "1: 'v 1 163 0' names frames"),
        (["original_vido_id video_id frame_id path labels", 'x 0 0 x/1.jpg ""'], "1: 'original_.* names frames"),
        (["# only"], " no entries; expected '<path of a video> <label>' on each line"),
    ],
)
def test_bad_lines_name_their_line(tmp_path: Path, rows: list[str], text: str) -> None:
    with pytest.raises(ListError, match=rf"l\.txt:{text}"):
        recognise_dataset(touch(tmp_path / "r", "a.mp4", "b.mp4"), lists=lines(tmp_path / "l.txt", *rows))


def test_frames_in_a_csv_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"train\.csv:1: 'a/1 163 0' names frames"):
        recognise_dataset(touch(tmp_path, "a.mp4"), lists=lines(tmp_path / "train.csv", "a/1 163 0", "a/2 90 1"))


def test_missing_videos_are_an_error_that_tells_other_extensions(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "a/1.mp4", "a/2.mp4")
    with pytest.raises(DataError, match=r"1 of 2 listed videos are missing in .*: a/3\.mp4; check that ROOT"):
        recognise_dataset(root, lists=lines(tmp_path / "l.txt", "a/1.mp4 0", "a/3.mp4 1"))
    with pytest.raises(DataError, match=r"2 of 2 .* a/1\.mp4 is there, with another extension: write the extensions"):
        recognise_dataset(root, lists=lines(tmp_path / "l.txt", "a/1.avi 0", "a/2.avi 1"))


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/\n")
STEMS = st.text(CHARACTERS | st.sampled_from(" #-\"',;\t"), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(STEMS, st.integers(0, 99), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_any_name_is_given_back(listed: dict[str, int], end: str) -> None:
    paths = {f"d/{stem}.avi": str(label) for stem, label in listed.items()}
    text = "".join(f"{path} {label}{end}" for path, label in paths.items())
    assert {line.path: line.label for line in parse_text(text, "x")} == paths

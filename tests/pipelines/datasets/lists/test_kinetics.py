"""Kinetics' CSV files and the layouts that its videos lie in; parts of uncut videos, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from clips import read_stamp, write_stamped_video
from layouts import lines, touch

from pipelines.datasets.entries import Dataset
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from pipelines.video.decoder import read_frames

HEADER = "label,youtube_id,time_start,time_end,split"


def kinetics(file: Path, *rows: str, header: str = HEADER) -> Path:
    return lines(file, header, *rows)


def found(data: Dataset) -> dict[tuple[str, tuple[float, float] | None], tuple[str, str]]:
    return {(entry.path, entry.span): (data.classes[entry.label], entry.split) for entry in data.entries}


ROWS = ("riding a bike,-aB_1-cd,10,20,train", "abseiling,xyz00000000,0,10,train", "abseiling,gone0000000,5,15,train")


@pytest.mark.parametrize(
    "path",
    [
        "riding a bike/-aB_1-cd_000010_000020.mp4",
        "riding_a_bike/-aB_1-cd_000010_000020.mkv",
        "train/riding a bike/-aB_1-cd_000010_000020.webm",
        "-aB_1-cd_000010_000020.avi",
    ],
)
def test_cut_files_are_found_in_any_layout(tmp_path: Path, path: str) -> None:
    data = recognise_dataset(touch(tmp_path / "r", path), lists=kinetics(tmp_path / "train.csv", *ROWS))
    assert found(data) == {(path, None): ("riding a bike", "train")}
    assert data.classes == ("abseiling", "riding a bike"), "labels don't depend on which videos are there"
    assert [item.name for item in data.missing] == [
        "abseiling/xyz00000000_000000_000010",
        "abseiling/gone0000000_000005_000015",
    ]
    assert data.kind == "kinetics"
    assert data.lists_split is None


def test_uncut_files_count_from_start_to_end(tmp_path: Path) -> None:
    rows = (*ROWS, "abseiling,-aB_1-cd,30,40,train")
    data = recognise_dataset(touch(tmp_path / "r", "videos/-aB_1-cd.mp4"), lists=kinetics(tmp_path / "l.csv", *rows))
    assert found(data) == {
        ("videos/-aB_1-cd.mp4", (10.0, 20.0)): ("riding a bike", "train"),
        ("videos/-aB_1-cd.mp4", (30.0, 40.0)): ("abseiling", "train"),
    }


def test_of_several_files_the_one_in_the_folder_of_the_class_is_taken(tmp_path: Path) -> None:
    names = ("a/xyz00000000_000000_000010.mp4", "Abseiling/xyz00000000_000000_000010.mp4", "xyz00000000.mp4")
    data = recognise_dataset(touch(tmp_path / "r", *names), lists=kinetics(tmp_path / "l.csv", *ROWS))
    assert found(data) == {(names[1], None): ("abseiling", "train")}
    assert any("2 videos in ROOT are in no list" in text for text in data.warnings)
    (tmp_path / "r" / names[1]).unlink()
    touch(tmp_path / "r", "b/xyz00000000_000000_000010.mp4")
    data = recognise_dataset(tmp_path / "r", lists=tmp_path / "l.csv")
    assert found(data) == {(names[0], None): ("abseiling", "train")}
    assert any("1 clips have several files, one is taken: a/" in text for text in data.warnings)


@pytest.mark.parametrize(
    "names", [("train.csv", "val.csv", "test.csv"), ("kinetics_train.csv", "kinetics-400_val.csv", "TEST.csv")]
)
def test_a_folder_of_lists(tmp_path: Path, names: tuple[str, str, str]) -> None:
    train, val, test = names
    kinetics(tmp_path / "l" / train, "b,v1,0,10,train,0", header=HEADER + ",is_cc")
    kinetics(tmp_path / "l" / val, '"a, b",v2,0,10,validate')
    kinetics(tmp_path / "l" / test, "v3,0,10,test", header="youtube_id,time_start,time_end,split")
    root = touch(tmp_path / "r", *(f"{name}_000000_000010.mp4" for name in ("v1", "v2", "v3")))
    data = recognise_dataset(root, lists=tmp_path / "l")
    assert {(path, side) for (path, _), (_, side) in found(data).items()} == {
        ("v1_000000_000010.mp4", "train"),
        ("v2_000000_000010.mp4", "val"),
    }
    assert data.classes == ("a, b", "b")
    assert any(test in text and "has no labels and is left out" in text for text in data.warnings)


def test_the_file_name_says_the_split_where_no_column_does(tmp_path: Path) -> None:
    file = kinetics(tmp_path / "validate.csv", "b,v1,0,10", header="label,youtube_id,time_start,time_end")
    data = recognise_dataset(touch(tmp_path / "r", "v1_000000_000010.mp4"), lists=file)
    assert [entry.split for entry in data.entries] == ["val"]


@pytest.mark.parametrize(("classes", "kind"), [(400, "kinetics400"), (700, "kinetics700"), (3, "kinetics")])
def test_the_kind_is_named_by_its_classes(tmp_path: Path, classes: int, kind: str) -> None:
    file = kinetics(tmp_path / "train.csv", *(f"c{i:03},v{i},0,10,train" for i in range(classes)))
    data = recognise_dataset(touch(tmp_path / "r", "v1_000000_000010.mp4"), lists=file)
    assert (data.kind, len(data.classes), len(data.missing)) == (kind, classes, classes - 1)


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "other.mp4")
    with pytest.raises(
        DataError, match=r"none of the 3 videos of .*train\.csv .* such as riding a bike/-aB_1-cd_000010_000020,"
    ):
        recognise_dataset(root, lists=kinetics(tmp_path / "train.csv", *ROWS))
    with pytest.raises(UsageError, match="the CSV files of Kinetics name their splits"):
        recognise_dataset(root, lists=tmp_path / "train.csv", split=1)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("a,v,10,5,train", r"l\.csv:2: time_start '10', time_end '5'; expected seconds"),
        ("a,v,x,5,train", "time_start 'x', time_end '5'"),
        ("a,v,nan,5,train", "time_start 'nan'"),
        ("a,v,0,10,held", "split 'held'; expected one of train, val"),
        ("a,v,0,10,", "split ''"),
        (",v,0,10,train", "label '', youtube_id 'v'"),
        ("a,../v,0,10,train", r"youtube_id '\.\./v'"),
        ("a,v", "time_start '', time_end ''"),
    ],
)
def test_bad_rows_name_their_line(tmp_path: Path, row: str, text: str) -> None:
    with pytest.raises(ListError, match=text):
        recognise_dataset(touch(tmp_path / "r", "v.mp4"), lists=kinetics(tmp_path / "l.csv", row))


def test_rows_named_twice(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "v1.mp4")
    data = recognise_dataset(
        root, lists=kinetics(tmp_path / "l.csv", "a,v1,0,10,train", "b,v1,0,10,train", "a,v1,20,30,val")
    )
    assert found(data) == {("v1.mp4", (0.0, 10.0)): ("a", "train"), ("v1.mp4", (20.0, 30.0)): ("a", "val")}
    assert any("1 rows name a clip again and are ignored: v1_000000_000010" in text for text in data.warnings)
    assert any("1 videos have clips in two splits: v1" in text for text in data.warnings)
    with pytest.raises(DataError, match=r"leak: v1_000000_000010 is in val at .*:3 and in train at .*:2"):
        recognise_dataset(root, lists=kinetics(tmp_path / "l.csv", "a,v1,0,10,train", "a,v1,0,10,val"))


def stamps(index: VideoIndex, number: int) -> list[int]:
    record = index[number]
    return [read_stamp(frame) for frame in read_frames(record, range(record.num_frames), root=index.root)]


def test_an_index_of_parts(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_stamped_video(tmp_path / "r" / "long.mp4", num_frames=120, codec="h264", gop=12, b_frames=2, fps=10)
    write_stamped_video(tmp_path / "r" / "cut_000007_000009.avi", num_frames=20, fps=10)
    rows = ["a,long,2,4,train", "b,long,5,7,val", "a,cut,7,9,val", "b,late,0,2,val", "a,long,40,50,train"]
    lists = kinetics(tmp_path / "l.csv", *rows)
    index = VideoIndex.build(tmp_path / "r", lists=lists, workers=0)
    assert [(r.path, r.span, r.num_frames, r.split) for r in (index[i] for i in range(len(index)))] == [
        ("cut_000007_000009.avi", None, 20, "val"),
        ("long.mp4", (2.0, 4.0), 20, "train"),
        ("long.mp4", (5.0, 7.0), 20, "val"),
    ]
    assert index.names() == ("cut_000007_000009.avi", "long.mp4#t=2,4", "long.mp4#t=5,7")
    assert stamps(index, 1) == list(range(20, 40))
    assert stamps(index, 2) == list(range(50, 70))
    assert [(item.name, item.split) for item in index.missing] == [("b/late_000000_000002", "val")]
    assert [(item.path, item.reason) for item in index.quarantined] == [("long.mp4#t=40,50", "no frame in its range")]
    assert index.lists == str(lists)
    looked: list[int] = []
    again = VideoIndex.build(tmp_path / "r", lists=lists, progress=lambda done, total: looked.append(done), workers=0)
    assert (looked, again.digest, len(again.missing)) == ([], index.digest, 1)
    kinetics(lists, *rows, "b,long,8,9,val")
    more = VideoIndex.build(tmp_path / "r", lists=lists, progress=lambda done, total: looked.append(done), workers=0)
    assert (looked, len(more), stamps(more, 3)) == ([5], 4, list(range(80, 90)))
    assert more.digest != index.digest


def test_clips_never_leave_their_part(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_stamped_video(tmp_path / "r" / "v.mp4", num_frames=90, codec="h264", gop=30, b_frames=2, fps=10)
    lists = kinetics(tmp_path / "l.csv", "a,v,2,4,train", "b,v,5,6,train", "b,v,7,8,val")
    index = VideoIndex.build(tmp_path / "r", lists=lists, workers=0)
    clip, seen = ClipSpec(num_frames=8, sampling="consecutive"), {0: set[int](), 1: set[int]()}
    augment = AugmentSpec(
        size_px=96, scales=(1.0,), max_scale_step=0, mirror=0.0, value_max=255, mean=(0, 0, 0), std=(1, 1, 1)
    )
    with ClipLoader(
        index, clip=clip, augment=augment, loader=LoaderSpec(batch_size=2, workers=0), split="train", train=False
    ) as loader:
        for batch in loader:
            for label, pixels in zip(batch.labels, np.from_dlpack(batch.clips), strict=True):
                for frame in pixels.transpose(1, 2, 3, 0):
                    seen[int(label)].add(read_stamp(_left(frame)))
    assert seen[0] <= set(range(20, 40))
    assert seen[1] <= set(range(50, 60))


def _left(frame: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The centre crop put back where the stamp is read: 16 px of 128 are cut off on each side."""
    return np.pad(np.clip(np.rint(frame), 0, 255).astype(np.uint8), ((0, 0), (16, 16), (0, 0)))


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_stamped_video(tmp_path / "r" / "v0_000000_000010.mp4", num_frames=5)
    lists = kinetics(tmp_path / "l.csv", *(f"c{i % 2},v{i},0,10,train" for i in range(14)))
    done = tiny.call("data", "index", tmp_path / "r", "--lists", lists, "--json", tmp_path / "j")
    assert done.returncode == 0, done.stderr
    assert "missing  13 of 14 listed videos (13 train)" in done.stdout
    assert "  c0/v10_000000_000010\n  and 3 more" in done.stdout
    missing = json.loads((tmp_path / "j").read_text(encoding="utf-8"))["missing"]
    assert missing == {"train": [f"c{i % 2}/v{i}_000000_000010" for i in range(1, 14)]}
    (tmp_path / "r" / "v0_000000_000010.mp4").rename(tmp_path / "r" / "x.mp4")
    done = tiny.call("data", "index", tmp_path / "r", "--lists", lists)
    assert done.returncode == 3
    assert "none of the 14 videos" in done.stderr

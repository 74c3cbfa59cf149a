"""JSON files with a database of videos: ActivityNet's segments, frame by frame, and those of the code of Hara et al."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from clips import read_stamp, write_stamped_video
from layouts import touch

from pipelines.containers.notes import ENDS_EARLY
from pipelines.datasets.entries import Dataset
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.video.decoder import read_frames


def segment(begin: Any, end: Any, label: Any) -> dict[str, Any]:
    return {"segment": [begin, end], "label": label}


def video(subset: Any, *annotations: Any) -> dict[str, Any]:
    """A video as the official file has it."""
    return {"duration": 12.3, "subset": subset, "resolution": "320x240", "url": "x", "annotations": list(annotations)}


def activitynet(file: Path, database: dict[str, Any]) -> Path:
    """A file with the keys of the official one."""
    nodes = [{"parentName": "Root", "nodeName": "Sports", "nodeId": 1, "parentId": 0}]
    return written(file, {"database": database, "taxonomy": nodes, "version": "VERSION 1.3"})


def written(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def found(data: Dataset) -> dict[tuple[str, Any], tuple[str, str]]:
    return {(entry.path, entry.span): (data.classes[entry.label], entry.split) for entry in data.entries}


DATABASE = {
    "-aB_1-cd": video("training", segment(1.5, 3.25, "Zumba"), segment(5, 7, "Archery"), segment(5, 7.5, "Zumba")),
    "xyz": video("validation", segment(0.01, 117.5, "Archery")),
    "gone": video("training", segment(2, 4, "Zumba")),
    "secret": video("testing"),
    "hidden": video("testing"),
}


def test_labels_beside_segments_give_the_order_of_classes(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "v_xyz.mp4", "v_-aB_1-cd.mp4")
    lists = written(tmp_path / "l.json", {"labels": ["Zumba", "Rowing", "Archery"], "database": DATABASE})
    data = recognise_dataset(root, lists=lists)
    assert (data.kind, data.classes) == ("activitynet", ("Zumba", "Rowing", "Archery"))
    assert found(data)[("v_xyz.mp4", (0.01, 117.5))] == ("Archery", "test")
    lists = written(tmp_path / "l.json", {"labels": ["Zumba"], "database": DATABASE})
    with pytest.raises(ListError, match=r"#t=5,7.*: label 'Archery'; expected one of `labels`"):
        recognise_dataset(root, lists=lists)


@pytest.mark.parametrize("folder", [True, False])
def test_each_segment_is_a_video_wherever_its_file_lies(tmp_path: Path, folder: bool) -> None:
    file = activitynet(tmp_path / "lists" / "activity_net.v1-3.min.json", DATABASE)
    root = touch(tmp_path / "r", "v1-3/train_val/v_-aB_1-cd.mkv", "v_xyz.webm", "v_secret.mp4")
    data = recognise_dataset(root, lists=file.parent if folder else file)
    assert found(data) == {
        ("v1-3/train_val/v_-aB_1-cd.mkv", (1.5, 3.25)): ("Zumba", "train"),
        ("v1-3/train_val/v_-aB_1-cd.mkv", (5.0, 7.0)): ("Archery", "train"),
        ("v1-3/train_val/v_-aB_1-cd.mkv", (5.0, 7.5)): ("Zumba", "train"),
        ("v_xyz.webm", (0.01, 117.5)): ("Archery", "test"),
    }
    assert (data.kind, data.classes) == ("activitynet", ("Archery", "Zumba"))
    assert [(item.name, item.split) for item in data.missing] == [("v_gone#t=2,4", "train")]
    assert "videos without a label are left out: 2 of test" in data.warnings
    assert "1 videos in ROOT are in no list" in data.warnings


def test_a_file_may_be_called_by_the_id_alone_and_v_comes_first(tmp_path: Path) -> None:
    lists = activitynet(tmp_path / "a.json", {"x": video("training", segment(0, 2, "b"))})
    assert [path for path, _ in found(recognise_dataset(touch(tmp_path / "r", "k/x.mp4"), lists=lists))] == ["k/x.mp4"]
    touch(tmp_path / "r", "k/v_x.mp4")
    assert [path for path, _ in found(recognise_dataset(tmp_path / "r", lists=lists))] == ["k/v_x.mp4"]
    touch(tmp_path / "r", "l/v_x.mp4")
    data = recognise_dataset(tmp_path / "r", lists=lists)
    assert any("1 clips have several files, one is taken: k/v_x.mp4" in text for text in data.warnings)


def test_an_index_of_segments(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    made = {"num_frames": 120, "gop": 12, "fps": 10}  # 12 s
    write_stamped_video(tmp_path / "r" / "v_long.mp4", codec="h264", b_frames=2, **made)  # type: ignore[arg-type]
    write_stamped_video(tmp_path / "r" / "v_web.webm", codec="vp8", **made)  # type: ignore[arg-type]
    lists = activitynet(
        tmp_path / "activity_net.json",
        {
            "long": video(
                "training",
                segment(2.05, 4, "b"),
                segment(3, 5, "a"),
                segment(10.5, 30, "b"),
                segment(12.5, 14, "a"),
                segment(0.3, 11.9, "a"),
            ),
            "web": video("validation", segment(0.2, 1.2, "b"), segment(-0.5, 0.8, "a")),
        },
    )
    index = VideoIndex.build(tmp_path / "r", lists=lists, workers=0)
    shown = {}
    for number, name in enumerate(index.names()):
        record = index[number]
        frames = read_frames(record, range(record.num_frames), root=index.root)
        shown[name] = ([read_stamp(frame) for frame in frames], index.classes[record.label], record.split)
    assert shown == {
        "v_long.mp4#t=0.3,11.9": (list(range(3, 119)), "a", "train"),
        "v_long.mp4#t=2.05,4": (list(range(21, 40)), "b", "train"),
        "v_long.mp4#t=3,5": (list(range(30, 50)), "a", "train"),
        "v_long.mp4#t=10.5,30": (list(range(105, 120)), "b", "train"),
        "v_web.webm#t=0,0.8": (list(range(8)), "a", "test"),
        "v_web.webm#t=0.2,1.2": (list(range(2, 12)), "b", "test"),
    }
    (beyond,) = (index[i] for i, name in enumerate(index.names()) if name.endswith("10.5,30"))
    assert beyond.notes == (ENDS_EARLY,)
    assert [(item.path, item.reason) for item in index.quarantined] == [
        ("v_long.mp4#t=12.5,14", "no frame in its range")
    ]


def test_odd_segments_are_counted_and_left_out(tmp_path: Path) -> None:
    lists = activitynet(
        tmp_path / "a.json",
        {
            "x": video("training", segment(1, 2, "b"), segment(4, 4, "b"), segment(7, 5, "b"), segment(1, 2, "b")),
            "y": video("training"),
        },
    )
    data = recognise_dataset(touch(tmp_path / "r", "v_x.mp4"), lists=lists)
    assert list(found(data)) == [("v_x.mp4", (1.0, 2.0))]
    assert data.warnings[:3] == (
        "videos without a label are left out: 1 of train",
        "segments that end before they begin and are left out (2): v_x#t=4,4, v_x#t=7,5",
        "segments that are listed again and ignored (1): v_x#t=1,2",
    )


@pytest.mark.parametrize(
    ("database", "text"),
    [
        (
            {"x": video("train2", segment(1, 2, "b"))},
            r"a\.json: 'x': subset 'train2'; expected training, validation or testing",
        ),
        ({"x": 3}, r"a\.json: 'x': 3; expected \"NAME\""),
        ({"a/b": video("training")}, r"a\.json: 'a/b': "),
        ({"x": video("training", 4)}, r"a\.json: 'x': 4; expected \{\"segment\": \[begin, end\], \"label\""),
        ({"x": video("training", segment(1, "2", "b"))}, r"a\.json: 'x': .*\[1, \"2\"\].*; expected .* with seconds"),
        ({"x": video("training", segment(1, float("nan"), "b"))}, r"a\.json: 'x': .*NaN"),
        ({"x": video("training", segment(True, 2, "b"))}, r"a\.json: 'x': .*true"),
        ({"x": video("training", {"segment": [1], "label": "b"})}, r"a\.json: 'x': .*\[1\]"),
        ({"x": video("training", segment(1, 2, " "))}, r"a\.json: 'x': "),
        ({"x": {"subset": "training", "annotations": {"label": "b"}}}, r"a\.json: 'x': annotations .* a list of seg"),
        ({"x": video("training", segment(1, 2, "b"), segment(1, 2, "c"))}, r"v_x#t=1,2 is 'b' and 'c'; expected one"),
        ({"x": video("testing")}, r"a\.json: no labelled segment; expected"),
        ({}, r"a\.json: no labelled segment; expected"),
    ],
)
def test_what_can_not_be_used_is_an_error_with_the_name(tmp_path: Path, database: Any, text: str) -> None:
    with pytest.raises(ListError, match=text):
        recognise_dataset(touch(tmp_path / "r", "v_x.mp4"), lists=activitynet(tmp_path / "a.json", database))


def test_files_that_are_cut_or_doubled_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "v_x.mp4")
    whole = activitynet(tmp_path / "l" / "activity_net.v1-3.min.json", DATABASE)
    written(tmp_path / "cut.json", whole.read_text()[:-40])
    with pytest.raises(ListError, match=r"cut\.json:1: no valid JSON .*; expected the whole file: download it again"):
        recognise_dataset(root, lists=tmp_path / "cut.json")
    activitynet(tmp_path / "l" / "activity_net.v1-2.min.json", DATABASE)
    with pytest.raises(ListError, match=r"holds .*v1-2\.min\.json and .*v1-3\.min\.json; expected one of them"):
        recognise_dataset(root, lists=tmp_path / "l")
    with pytest.raises(UsageError, match="a JSON with a database names its splits; leave it out"):
        recognise_dataset(root, lists=whole, split=1)
    with pytest.raises(DataError, match=r"none of the 3 videos of .*v1-3.* such as v_-aB_1-cd, v_xyz, v_gone; give"):
        recognise_dataset(root, lists=whole)
    written(tmp_path / "other.json", {"database": [1]})
    with pytest.raises(ListError, match="a JSON object; expected a list of objects with id and template"):
        recognise_dataset(root, lists=tmp_path / "other.json")


# Files that the code of Hara et al. makes


def theirs(subset: str, label: str | None, frames: int = 40) -> dict[str, Any]:
    """A video with the segment of pictures that their scripts add."""
    return {"subset": subset, "annotations": {"segment": [1, frames + 1], **({"label": label} if label else {})}}


def test_ucf101_of_hara_has_its_classes_in_the_order_of_their_labels(tmp_path: Path) -> None:
    lists = written(
        tmp_path / "ucf101_01.json",
        {
            "labels": ["Lunges", "Archery", "Punch"],
            "database": {
                "v_Lunges_g08_c01": theirs("training", "Lunges"),
                "v_Archery_g01_c01": theirs("validation", "Archery"),
            },
        },
    )
    root = touch(tmp_path / "r", "Lunges/v_Lunges_g08_c01.avi", "Archery/v_Archery_g01_c01.avi")
    data = recognise_dataset(root, lists=lists)
    assert found(data) == {
        ("Lunges/v_Lunges_g08_c01.avi", None): ("Lunges", "train"),
        ("Archery/v_Archery_g01_c01.avi", None): ("Archery", "test"),
    }
    assert (data.kind, data.classes, data.missing) == ("annotations", ("Lunges", "Archery", "Punch"), ())
    (root / "Lunges/v_Lunges_g08_c01.avi").unlink()
    with pytest.raises(DataError, match=r"1 of 2 listed videos are missing in .*: Lunges/v_Lunges_g08_c01;"):
        recognise_dataset(root, lists=lists)


def test_kinetics_of_hara_is_as_its_csv_files_but_for_the_order_of_classes(tmp_path: Path) -> None:
    lists = written(
        tmp_path / "kinetics.json",
        {
            "labels": ["riding a bike", "abseiling"],
            "database": {
                "-aB_1-cd_000010_000020": theirs("training", "riding a bike"),
                "xyz_000000_000010": theirs("validation", "abseiling"),
                "gone_000000_000010": theirs("validation", "abseiling"),
                "secret_000000_000010": theirs("testing", None),
            },
        },
    )
    data = recognise_dataset(touch(tmp_path / "r", "riding a bike/-aB_1-cd_000010_000020.mp4", "xyz.mp4"), lists=lists)
    assert found(data) == {
        ("riding a bike/-aB_1-cd_000010_000020.mp4", None): ("riding a bike", "train"),
        ("xyz.mp4", (0.0, 10.0)): ("abseiling", "val"),
    }
    assert (data.kind, data.classes) == ("kinetics", ("riding a bike", "abseiling"))
    assert [(item.name, item.split) for item in data.missing] == [("abseiling/gone_000000_000010", "val")]
    assert "videos without a label are left out: 1 of test" in data.warnings


@pytest.mark.parametrize(
    ("labels", "database", "text"),
    [
        (["a", "a"], {"x": theirs("training", "a")}, r"l\.json: labels \[\"a\", \"a\"\]; expected the names"),
        ("a", {"x": theirs("training", "a")}, r"l\.json: labels \"a\"; expected"),
        (["a", 1], {"x": theirs("training", "a")}, r"l\.json: labels "),
        (["a"], {"x": theirs("training", "b")}, r"l\.json: 'x': annotations .*\"b\".*; expected a label of `labels`"),
        (["a"], {"x": {"subset": "training"}}, r"l\.json: 'x': annotations null; expected a label"),
        (["a"], {"x": theirs("testing", None)}, r"l\.json: no video has a label; expected"),
    ],
)
def test_what_can_not_be_used_of_theirs_is_an_error(tmp_path: Path, labels: Any, database: Any, text: str) -> None:
    lists = written(tmp_path / "l.json", {"labels": labels, "database": database})
    with pytest.raises(ListError, match=text):
        recognise_dataset(touch(tmp_path / "r", "a/x.avi"), lists=lists)


def test_the_command_counts_what_is_missing_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_stamped_video(tmp_path / "r" / "v_-aB_1-cd.mp4", num_frames=200, fps=25)
    lists = activitynet(tmp_path / "activity_net.v1-3.min.json", DATABASE)
    done = tiny.call("data", "index", tmp_path / "r", "--lists", lists)
    assert done.returncode == 0, done.stderr
    assert "videos   3 (3 train)" in done.stdout
    assert "missing  2 of 5 listed videos (1 test, 1 train)" in done.stdout
    assert "videos without a label are left out: 2 of test" in done.stderr

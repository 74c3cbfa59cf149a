"""The JSON lists of Something-Something v2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layouts import labels, lines, touch, videos

from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, ListError
from pipelines.index.video_index import VideoIndex

HOLD, PUSH = "Holding [something]", "Pushing [something] from [somewhere], slowly"
NAMES = {"Pushing something from somewhere, slowly": "1", "Holding something": "0"}


def something(folder: Path, **sides: list[tuple[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for side, entries in sides.items():
        items = [{"id": video, "label": "a cup", "template": text, "placeholders": ["cup"]} for video, text in entries]
        file = folder / f"something-something-v2-{side}.json"
        file.write_text(json.dumps(items if items[0]["template"] else [{"id": item["id"]} for item in items], indent=1))
    return folder


def test_something_something_v2(tmp_path: Path) -> None:
    videos(tmp_path / "r", *(f"{i}.webm" for i in range(1, 7)))
    folder = something(
        tmp_path / "l",
        train=[("1", HOLD), ("2", PUSH)],
        validation=[("3", HOLD), ("4", PUSH)],
        test=[("5", ""), ("6", "")],
    )
    (folder / "something-something-v2-labels.json").write_text(json.dumps(NAMES))
    index = VideoIndex.build(tmp_path / "r", lists=folder, workers=0)
    assert (index.kind, index.classes) == ("something-something-v2", tuple(sorted(NAMES)))
    records = [index[i] for i in range(len(index))]
    assert [(r.path, r.label, r.split, r.num_frames) for r in records] == [
        ("1.webm", 0, "train", 5),
        ("2.webm", 1, "train", 5),
        ("3.webm", 0, "test", 5),
        ("4.webm", 1, "test", 5),
    ]
    assert index.warnings[:2] == (
        f"{folder}/something-something-v2-test.json has no labels and is left out",
        "2 videos in ROOT are in no list",
    )


def test_answers_of_the_test_videos_stand_for_the_list_without_labels(tmp_path: Path) -> None:
    folder = something(tmp_path / "l", train=[("1", HOLD), ("2", PUSH)], validation=[("3", HOLD)], test=[("5", "")])
    lines(folder / "test-answers.csv", "5;Holding something")
    data = recognise_dataset(touch(tmp_path / "r", *(f"{i}.mp4" for i in (1, 2, 3, 5))), lists=folder)
    assert {path: split for path, (_, split) in labels(data).items()} == {
        "1.mp4": "train",
        "2.mp4": "train",
        "3.mp4": "val",
        "5.mp4": "test",
    }
    assert f"no something-something-v2-labels.json in {folder}: the classes are in the order of names" in data.warnings


def test_videos_in_a_folder_below_the_root(tmp_path: Path) -> None:
    folder = something(tmp_path / "l", train=[("1", HOLD), ("2", PUSH)])
    root = touch(tmp_path / "r", "20bn-something-something-v2/1.webm", "20bn-something-something-v2/2.webm")
    data = recognise_dataset(root, lists=folder)
    assert [entry.path.partition("/")[2] for entry in data.entries] == ["1.webm", "2.webm"]
    assert "no list of test or val videos: there is nothing to evaluate on" in data.warnings


def test_missing_videos_are_an_error(tmp_path: Path) -> None:
    folder = something(tmp_path / "l", train=[("1", HOLD), ("2", PUSH)])
    with pytest.raises(DataError, match=r"1 of 2 listed videos are missing in .*: 2; check"):
        recognise_dataset(touch(tmp_path / "r", "1.webm"), lists=folder)


def test_a_template_that_is_no_class_names_its_line(tmp_path: Path) -> None:
    folder = something(tmp_path / "l", train=[("1", HOLD), ("2", "Eating [something]")])
    (folder / "labels.json").write_text(json.dumps(NAMES))
    with pytest.raises(ListError, match=r"train\.json:10: class 'Eating something'; expected a class of labels\.json"):
        recognise_dataset(touch(tmp_path / "r", "1.webm"), lists=folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"id": "1",\n"template": "a"},\n{"id": 2 "x"}]', ":3: no valid JSON .*; expected a list of objects with id"),
        ('{"a": {"annotations": {}}}', ": a JSON object; expected a list of objects with id and template"),
        ("[]", ": an empty list; expected"),
        ("[" * 100_000, "(: JSON that can't be read|:1: no valid JSON) .*; expected a list"),
        (f'[{{"id": {"1" * 5000}}}]', ": JSON that can't be read .*; expected a list"),
        ('[{"id": "1", "template": "a"},\n\n{"video": "2"}]', r":3: \{\"video\": \"2\"\}; expected a list of objects"),
        ('[{"id": "1", "template": "a"},\n7]', ":2: 7; expected"),
        ('[{"id": "1", "template": "a"},\n{"id": 2}]', ":2: no template for the video '2', others have one"),
        ('[{"id": "1"}]', ": no video has a label; expected lists of labelled videos"),
    ],
)
def test_bad_json_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ListError, match=rf"x\.json{said}") as error:
        recognise_dataset(touch(tmp_path / "r", "1.webm"), lists=lines(tmp_path / "x.json", text))
    assert "\n" not in str(error.value)

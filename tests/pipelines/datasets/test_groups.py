from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from layouts import lines, split_of, touch

from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, UsageError


def cuts(root: Path, recordings: int = 10, classes: str = "ab", each: int = 3) -> Path:
    """A folder of videos in which each recording has `each` cuts of every class."""
    return touch(root, *(f"{c}/rec{r}_{k}.mp4" for r in range(recordings) for c in classes for k in range(each)))


def recording(path: str) -> str:
    return path.partition("/")[2].partition("_")[0]


def splits_of_recordings(root: Path, **options: object) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, split in split_of(recognise_dataset(root, **options)).items():  # type: ignore[arg-type]
        found.setdefault(recording(path), set()).add(split)
    return found


def test_cuts_of_one_recording_are_held_out_together_across_classes(tmp_path: Path) -> None:
    root = cuts(tmp_path)
    assert any(len(splits) > 1 for splits in splits_of_recordings(root).values())
    grouped = splits_of_recordings(root, group=r"/(rec\d+)_")
    assert all(len(splits) == 1 for splits in grouped.values())
    assert Counter(split for splits in grouped.values() for split in splits) == {"train": 8, "test": 2}


def test_the_share_of_each_class_is_kept_as_well_as_groups_allow(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a/rec{r}_{k}.mp4" for r in range(20) for k in range(1 + r % 5)))
    touch(tmp_path, *(f"b/rec{r}_{k}.mp4" for r in range(0, 20, 2) for k in range(2)))
    data = recognise_dataset(tmp_path, group=r"rec\d+")
    held = Counter(entry.label for entry in data.entries if entry.split == "test")
    sizes = Counter(entry.label for entry in data.entries)
    assert all(0.1 <= held[label] / sizes[label] <= 0.3 for label in sizes)


@pytest.mark.parametrize("pattern", [r"/(rec\d+)_", r"rec\d+", r"(rec)(\d+)", r"rec\d+(?=_)"])
def test_a_group_is_what_the_brackets_match_or_else_the_whole_match(tmp_path: Path, pattern: str) -> None:
    data = recognise_dataset(cuts(tmp_path), group=pattern)
    groups: dict[str, set[str]] = {}
    for entry in data.entries:
        groups.setdefault(entry.group, set()).add(recording(entry.path))
    assert len(groups) == 10
    assert all(len(those) == 1 for those in groups.values())


def test_a_column_of_a_csv_names_the_groups(tmp_path: Path) -> None:
    root = cuts(tmp_path / "videos")
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.mp4"))
    file = lines(tmp_path / "list.csv", "path,label,Scene", *(f"{p},{p[0]},{recording(p)[-1]}" for p in paths))
    data = recognise_dataset(root, lists=file, group="scene")
    assert {entry.path: entry.group for entry in data.entries} == {p: recording(p)[-1] for p in paths}
    sides = {(entry.group, entry.split) for entry in data.entries}
    assert len(sides) == 10
    plain = recognise_dataset(root, lists=file)  # without the option the column is neither groups nor splits
    assert {entry.group for entry in plain.entries} == {""}
    assert Counter(entry.split for entry in plain.entries) == {"train": 48, "test": 12}


def test_a_group_in_two_splits_is_an_error_that_names_both_videos(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/rec1_0.mp4", "train/a/rec2_0.mp4", "test/a/rec1_1.mp4")
    recognise_dataset(tmp_path)
    with pytest.raises(DataError, match=r"leak: 1 groups .*: rec1 \(train: train/a/rec1_0.mp4 and test: test/a/rec1_1"):
        recognise_dataset(tmp_path, group=r"rec\d")


def test_videos_without_a_group_are_alone_and_counted(tmp_path: Path) -> None:
    root = touch(cuts(tmp_path, recordings=4), "a/single.mp4")
    data = recognise_dataset(root, group=r"rec\d+")
    assert "1 of 25 videos are of no group, each is alone: a/single.mp4" in data.warnings


def test_all_in_one_group_is_a_warning_and_nothing_is_held_out(tmp_path: Path) -> None:
    data = recognise_dataset(cuts(tmp_path, recordings=1), group="rec")
    assert {entry.split for entry in data.entries} == {"train"}
    assert "all 6 videos are of one group, rec: none can be held out" in data.warnings
    assert "no video could be held out for testing: there is nothing to evaluate on" in data.warnings


@pytest.mark.parametrize("group", [".*", r"[ab]/(rec\d+_\d)"])
def test_a_group_for_each_video_is_a_warning(tmp_path: Path, group: str) -> None:
    data = recognise_dataset(cuts(tmp_path, recordings=2, classes="a"), group=group)
    (warning,) = [text for text in data.warnings if "groups has one video" in text]
    assert warning.startswith("each of 6 groups has one video, so none keeps cuts together: a/rec0_0.mp4 is of ")
    assert not any("one video" in text for text in recognise_dataset(tmp_path, group=r"rec\d").warnings)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", r"group '\(': neither a column of the lists nor a regular expression \(missing \), unterminated"),
        ("scene", r"group 'scene' matches none of 6 paths, such as a/rec0_0.mp4; expected a regular expression"),
        ("", "group is empty"),
    ],
)
def test_what_names_no_group_is_one_line(tmp_path: Path, group: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recognise_dataset(cuts(tmp_path, recordings=1), group=group)

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import touch

from pipelines.datasets.entries import Dataset
from pipelines.datasets.recognition import recognise_dataset
from pipelines.datasets.split_names import SPLIT_WORDS, SPLITS, split_named

WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def splits(data: Dataset) -> dict[str, str]:
    return {entry.path: entry.split for entry in data.entries}


def test_every_word_and_no_other() -> None:
    assert sorted(WORDS) == sorted(SPLIT_WORDS)
    assert SPLIT_WORDS[:3] == SPLITS
    assert set(WORDS.values()) == set(SPLITS)
    assert [split_named(word) for word in ("", "dev", "trainer", "Lunges")] == [""] * 4


@pytest.mark.parametrize("word", WORDS)
def test_in_folders_csvs_and_kinetics_lists_alike(tmp_path: Path, word: str) -> None:
    split = WORDS[word]
    assert split_named(word) == split_named(word.upper()) == split

    others = {"train": "a", "val": "b", "test": "c"}
    del others[split]
    paths = {split: f"{word.title()}/x/v.avi"} | {side: f"{side}/x/{name}.avi" for side, name in others.items()}
    root = touch(tmp_path / "folders", *paths.values())
    assert splits(recognise_dataset(root)) == {path: side for side, path in paths.items()}

    csv = tmp_path / "list.csv"
    rows = [f"{paths[side]},x,{word if side == split else side}" for side in SPLITS]
    csv.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert splits(recognise_dataset(root, lists=csv)) == {path: side for side, path in paths.items()}

    header = "label,youtube_id,time_start,time_end"
    videos = touch(tmp_path / "k", "v_000000_000010.mp4")
    for name, columns, row in (("other.csv", f"{header},split", f",{word}"), (f"{word}.csv", header, "")):
        (tmp_path / name).write_text(f"{columns}\nx,v,0,10{row}\n", encoding="utf-8")
        assert list(splits(recognise_dataset(videos, lists=tmp_path / name)).values()) == [split]

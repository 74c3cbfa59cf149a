from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pipelines.errors import DataError
from r3d_fast.prediction.video_paths import find_videos, read_list


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.avi",
        "a.MP4",
        "notes.txt",
        "in/c.mkv",
        "in/deep/d.webm",
        "in/.hidden.avi",
        ".git/e.avi",
        "x.avi/f.ts",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_the_videos_under_it(tree: Path) -> None:
    assert list(find_videos([str(tree)])) == [
        str(tree / name) for name in ("a.MP4", "b.avi", "in/c.mkv", "in/deep/d.webm", "x.avi/f.ts")
    ]


def test_links_to_folders_are_not_followed(tree: Path) -> None:
    (tree / "in" / "loop").symlink_to(tree)
    (tree / "in" / "link.avi").symlink_to(tree / "b.avi")
    assert list(find_videos(["in"])) == ["in/c.mkv", "in/link.avi", "in/deep/d.webm"]


def test_globs_match_videos_and_what_is_in_matching_folders(tree: Path) -> None:
    assert list(find_videos(["*.avi"])) == ["b.avi", "x.avi/f.ts"]
    assert list(find_videos(["in/**/*.webm", "*"])) == ["in/deep/d.webm", "a.MP4", "b.avi", "in/c.mkv", "x.avi/f.ts"]


def test_a_glob_without_a_video_is_given_as_it_is(tree: Path) -> None:
    assert list(find_videos(["*.txt", "none/*.avi"])) == ["*.txt", "none/*.avi"]


def test_a_file_whose_name_looks_like_a_glob_or_an_option_is_that_file(tree: Path) -> None:
    for name in ("a[1].avi", "-x.avi", "{}.avi", "what?.dat"):
        (tree / name).touch()
        assert list(find_videos([name])) == [name]


def test_what_is_named_outright_counts_whatever_it_is(tree: Path) -> None:
    assert list(find_videos(["notes.txt", "none.avi", "nul\0.avi", ".git/e.avi"])) == [
        "notes.txt", "none.avi", "nul\0.avi", ".git/e.avi",
    ]  # fmt: skip


def test_each_file_comes_once_in_order(tree: Path) -> None:
    assert list(find_videos(["b.avi", "./b.avi", str(tree / "b.avi"), "a.MP4", "in/../b.avi"])) == ["b.avi", "a.MP4"]


def test_a_list_on_stdin(tree: Path) -> None:
    stdin = io.BytesIO(b"\xef\xbb\xbfb.avi\r\n\nin\nnone with space.avi\n#1.avi")
    assert list(find_videos(["a.MP4", "-"], stdin)) == [
        "a.MP4", "b.avi", "in/c.mkv", "in/deep/d.webm", "none with space.avi", "#1.avi",
    ]  # fmt: skip


def test_a_list_separated_by_nul_may_hold_names_with_newlines() -> None:
    assert list(read_list(io.BytesIO(b"a\nb.avi\0caf\xe9.avi\0"))) == ["a\nb.avi", os.fsdecode(b"caf\xe9.avi")]


def test_paths_of_a_list_are_given_as_they_come() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stream, os.fdopen(theirs, "wb", buffering=0) as writer:
        paths = read_list(stream)
        writer.write(b"a.avi\nb.a")
        assert next(paths) == "a.avi"
        writer.write(b"vi\n")
        assert next(paths) == "b.avi"


def test_a_folder_without_videos_is_given_as_it_is(tree: Path) -> None:
    (tree / "empty").mkdir()
    assert list(find_videos(["empty", "b.avi"])) == ["empty", "b.avi"]


def test_nothing_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="empty video list: expected files") as caught:
        list(find_videos(["-"], io.BytesIO(b"\n\n")))
    assert caught.value.exit_code == 3


def test_a_folder_that_can_not_be_read_is_given_as_it_is(tree: Path) -> None:
    (tree / "closed").mkdir(mode=0)
    if os.access(tree / "closed", os.R_OK):
        pytest.skip("a superuser reads every folder")
    assert list(find_videos(["closed"])) == ["closed"]

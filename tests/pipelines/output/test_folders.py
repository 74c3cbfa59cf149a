from __future__ import annotations

import os
from pathlib import Path

import pytest
from written import break_off, names

from pipelines.errors import UsageError
from pipelines.output.files import put_in_place
from pipelines.output.folders import delete_folder, make_folder, make_once, new_folder, replaced_folder, set_aside


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    for content in ("first", "second"):
        with new_folder(place) as folder:
            (folder / "file").write_text(content)
            assert not place.exists() or (place / "file").read_text() == "first"
        assert (place / "file").read_text() == content
    assert (names(tmp_path / "a"), names(place)) == (["b"], ["file"])
    (tmp_path / "link").symlink_to("a/b")
    with new_folder(tmp_path / "link") as folder:
        (folder / "other").touch()
    assert names(place) == ["other"]
    assert (tmp_path / "link").is_symlink()


def test_after_an_error_the_old_folder_stays_and_new_ones_above_are_gone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    for place in (tmp_path / "old", tmp_path / "a" / "b" / "c"):
        with pytest.raises(ZeroDivisionError):
            break_off(new_folder(place), lambda folder: (folder / "half").touch(), ZeroDivisionError)
    assert (names(tmp_path), names(tmp_path / "old")) == (["old"], ["file"])


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (
        ("file", "it is a file; expected a folder"),
        ("fifo", "it is a FIFO; expected a folder"),
        ("file/in", "a part of the path is a file; nothing was left there"),
    ):
        with (
            pytest.raises(UsageError, match=f"{tmp_path / name}: can't be written: {reason}"),
            new_folder(tmp_path / name),
        ):
            raise AssertionError
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["fifo", "file"], "mine")


def test_a_folder_that_can_not_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_folder(tmp_path / "c") as folder:
        (folder / "file").write_text("old")
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="Input/output error"), replaced_folder(tmp_path / "c", tmp_path / "c.old"):
        pass
    assert (names(tmp_path), (tmp_path / "c" / "file").read_text()) == (["c"], "old")


def test_a_folder_of_that_name_with_old_behind_it_is_not_ours(tmp_path: Path) -> None:
    for name in ("model", "model.old", "model.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    with new_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == ["model", "model.old", "model.tmp"]
    assert names(tmp_path / "model.old") == names(tmp_path / "model.tmp") == ["mine"]


def fill(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "file").write_text("content")


def test_what_was_made_is_made_once_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    calls = []

    def counted(folder: Path) -> None:
        calls.append(folder)
        fill(folder)

    root = tmp_path / "a" / "set"
    for _ in range(2):
        make_once(root, ".marker", {"n": 1}, "set", counted)
    assert (names(root), len(calls)) == ([".marker", "in"], 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    make_once(tmp_path / "link", ".marker", {"n": 1}, "set", counted)
    assert names(tmp_path / "empty") == [".marker", "in"]
    (tmp_path / "file").touch()
    for place, text in (
        (root, "holds a set made with other arguments; give another folder"),
        (tmp_path / "a", "exists, but is not a set"),
        (tmp_path / "file", "exists, but is not a set"),
        (tmp_path / "file" / "in", "can't be written: a part of the path is a file"),
    ):
        with pytest.raises(UsageError, match=f"{place}: {text}"):
            make_once(place, ".marker", {"n": 2}, "set", counted)
    with pytest.raises(ZeroDivisionError):
        make_once(tmp_path / "broken", ".marker", {}, "set", lambda folder: 1 / 0 and None)
    assert names(tmp_path) == ["a", "empty", "file", "link"]


def test_of_two_that_make_the_same_the_first_one_counts(tmp_path: Path) -> None:
    root = tmp_path / "set"

    def slow(folder: Path) -> None:
        fill(folder)
        make_once(root, ".marker", {}, "set", fill)  # another process meanwhile
        (folder / "in" / "file").write_text("of the slower one")

    make_once(root, ".marker", {}, "set", slow)
    assert (root / "in" / "file").read_text() == "content"
    assert names(tmp_path) == ["set"]


def test_a_folder_is_put_where_none_is(tmp_path: Path) -> None:
    for name in ("new", "taken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(OSError, match="not empty"):
        put_in_place(tmp_path / "new", tmp_path / "taken")
    (tmp_path / "empty").mkdir()
    put_in_place(tmp_path / "new", tmp_path / "empty")
    assert (names(tmp_path), (tmp_path / "empty" / "file").read_text()) == (["empty", "taken"], "new")
    (tmp_path / "f").write_text("f")
    put_in_place(tmp_path / "f", tmp_path / "taken" / "file")
    assert (tmp_path / "taken" / "file").read_text() == "f"


def test_what_is_set_aside_or_deleted_is_seen_no_more(tmp_path: Path) -> None:
    for name in ("a", "a.damaged", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").touch()
    set_aside(tmp_path / "a", ".damaged")
    delete_folder(tmp_path / "b")
    assert names(tmp_path) == ["a.damaged"]
    assert names(tmp_path / "a.damaged") == ["of-a"]


def test_a_folder_is_made_and_tried(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for name in ("file", "file/in"):
        with pytest.raises(UsageError, match=f"{name}: can't be written: a part of the path is a file; do this$"):
            make_folder(tmp_path / name, "do this")
    with pytest.raises(UsageError, match="-: means stdout; expected a folder"):
        make_folder(Path("-"))

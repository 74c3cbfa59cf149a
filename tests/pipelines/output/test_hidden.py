"""What a killed process left beside a result is deleted by the next write of it; nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_disk import mounted
from written import BEFORE, REPO, names

from pipelines.errors import UsageError
from pipelines.output.files import check_writable, write_file
from pipelines.output.folders import make_once, new_folder
from pipelines.output.hidden import delete_unheld, held_folder

_HOLDS = """
def wait(folder):
    (folder / "half").write_text("x")
    print("ready", flush=True)
    sys.stdin.read()

with new_file(Path(sys.argv[1]) / "r.json") as file, new_folder(Path(sys.argv[1]) / "f") as folder:
    file.write(b"half")
    file.flush()
    (folder / "half").write_text("x")
    make_once(Path(sys.argv[1]) / "once", ".marker", {}, "set", wait)
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing r.json, f and once in `folder`."""
    command = [sys.executable, "-c", BEFORE + _HOLDS, str(folder)]
    child = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def _folder(place: Path) -> None:
    with new_folder(place) as folder:
        (folder / "whole").touch()


def _once(place: Path) -> None:
    make_once(place, ".marker", {}, "set", lambda folder: (folder / "whole").touch())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("r.json", lambda place: write_file(place, b"whole")), ("f", _folder), ("once", _once),
    ],
)  # fmt: skip
def test_what_a_killed_process_left_of_a_result_is_deleted_by_its_next_write(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    end(writer(tmp_path))
    left = names(tmp_path)
    assert len(left) == 3
    write(tmp_path / name)
    assert names(tmp_path) == sorted([name, *(other for other in left if not other.startswith(f".{name}."))])


def test_what_a_living_process_writes_is_not_touched_and_gets_its_place(tmp_path: Path) -> None:
    living = writer(tmp_path)
    held = names(tmp_path)
    write_file(tmp_path / "r.json", b"mine")
    check_writable(tmp_path / "r.json")
    _folder(tmp_path / "f")
    _once(tmp_path / "once")
    assert names(tmp_path) == sorted([*held, "f", "once", "r.json"])
    living.communicate("")
    assert living.returncode == 0
    assert names(tmp_path) == ["f", "once", "r.json"]
    assert (tmp_path / "r.json").read_bytes() == b"half"
    assert names(tmp_path / "f") == ["half"]
    assert names(tmp_path / "once") == [".marker", "whole"]  # the first one counts


def test_a_new_folder_that_another_process_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(folder: Path, *arguments: Any, **more: Any) -> None:
        _make(folder, *arguments, **more)
        made.append(folder)
        if len(made) < 3:
            delete_unheld(folder, folders=True)

    _make = Path.mkdir
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", make)
        with held_folder(tmp_path / "runs") as folder:
            assert folder.is_dir()
    assert len(made) == 3
    assert names(tmp_path) == []


def test_a_file_that_only_looks_like_a_leftover_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / ".r.json.r3d-fast-0123abcd.tmp").mkdir()
    (tmp_path / ".r.json.r3d-fast-0123abce.tmp").symlink_to("theirs")
    os.mkfifo(tmp_path / ".r.json.r3d-fast-0123abcf.tmp")
    for other in (
        ".r.json.deadbeef.tmp", ".r.json.r3d-fast-mine.tmp", ".rXjson.r3d-fast-01234567.tmp", "r.json.tmp",
        ".r.json.r3d-fast-.tmp", ".r.json.r3d-fast-0123abc.tmp", ".r.json.r3d-fast-0123abcd0.tmp",
        ".r.json.r3d-fast-0123ABCD.tmp", ".r.json.r3d-fast-0123abcd.tmp2", ".r.json.r3d-fast-0123abcd.old",
    ):  # fmt: skip
        (tmp_path / other).write_text("mine")
    before = names(tmp_path)
    write_file(tmp_path / "r.json", b"x")
    assert names(tmp_path) == sorted([*before, "r.json"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_the_file_of_another_user_stays(tmp_path: Path) -> None:
    theirs = tmp_path / ".r.json.r3d-fast-0123abcd.tmp"
    theirs.write_text("x")
    os.chown(theirs, 12345, 12345)
    write_file(tmp_path / "r.json", b"x")
    assert names(tmp_path) == [theirs.name, "r.json"]


def test_the_only_copy_of_a_folder_stays_until_there_is_a_new_one(tmp_path: Path) -> None:
    old = tmp_path / ".f.r3d-fast-0123abcd.old"  # as a process leaves it that is killed between the two renames
    old.mkdir()
    (old / "whole").touch()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "f"):
        raise ZeroDivisionError
    assert names(tmp_path) == [old.name]
    _folder(tmp_path / "f")
    assert names(tmp_path) == ["f"]


def test_what_was_left_on_a_full_disk_makes_room_for_the_next_try(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1M") as disk:
        child = writer(disk)
        (left,) = (path for path in disk.glob(".r.json.*"))
        with left.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
        with pytest.raises(UsageError, match=r"r\.json: can't be written: No space left on device"):
            write_file(disk / "r.json", bytes(300_000))
        end(child)
        write_file(disk / "r.json", bytes(300_000))
        assert (disk / "r.json").stat().st_size == 300_000

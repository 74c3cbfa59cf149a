from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from written import BEFORE, REPO, Reader, break_off, names

from pipelines.errors import UsageError
from pipelines.output.files import check_writable, file_digest, new_file, write_file, write_json
from pipelines.output.folders import delete_leftovers, new_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("old")
    with new_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        (hidden,) = set(names(tmp_path)) - {"p.json"}
        assert hidden.startswith(".p.json.")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["p.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(5, "Input/output error")])
def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path: Path, error: Any) -> None:
    path = tmp_path / "p.json"
    path.write_text("old")
    expected = UsageError if isinstance(error, OSError) else error
    with pytest.raises(expected) as caught:
        break_off(new_file(path, "do this"), lambda file: file.write(b"half"), error)
    if expected is UsageError:
        assert str(caught.value) == f"{path}: can't be written: Input/output error; do this"
    assert (names(tmp_path), path.read_text()) == (["p.json"], "old")


def test_an_error_that_has_nothing_to_do_with_files_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="External"), new_file(tmp_path / "p"):
        raise OSError("(External) CUDA error(2), out of memory")  # as Paddle raises it
    assert names(tmp_path) == []


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_and_folders_have_the_mode_that_the_umask_says(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        write_file(tmp_path / "file", b"x")
        with new_folder(tmp_path / "folder") as folder:
            (folder / "in").touch()
    assert mode(tmp_path / "file") == 0o666 & ~mask
    assert mode(tmp_path / "folder") == 0o777 & ~mask


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    for name in ("target", "absent"):
        (tmp_path / f"to-{name}").symlink_to(name)
        (tmp_path / f"far-{name}").symlink_to(tmp_path / f"to-{name}")
        write_file(tmp_path / f"far-{name}", b"new")
        assert (tmp_path / name).read_text() == "new"
        assert (tmp_path / f"to-{name}").readlink() == Path(name)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="loop: can't be written: Too many levels of symbolic links"):
        write_file(tmp_path / "loop", b"x")
    (tmp_path / "lost").symlink_to("no/such/place")
    with pytest.raises(UsageError, match="lost: can't be written: No such file or directory"):
        write_file(tmp_path / "lost", b"x")


def test_two_names_of_one_file_part_and_a_name_as_long_as_any_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "b").read_text() == "old"  # as whoever reads it now sees it
    for name in ("é" * 127, "\udcff" * 255):
        write_file(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.parametrize("check", [check_writable, lambda path: write_file(path, b"x")])
def test_where_nothing_can_be_written_is_said_in_one_line(tmp_path: Path, check: Any) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "it is a folder; expected a file"),
        (tmp_path / "no" / "p.json", f"there is no folder {tmp_path / 'no'}; make it first"),
        (tmp_path / "file" / "p.json", "there is no folder|a part of the path is a file"),
        (Path("/proc/none"), "No such file or directory|Permission denied|Operation not permitted"),
        (Path("/dev/fd/99"), "Bad file descriptor"),
        (tmp_path / ("n" * 256), "File name too long"),
    ):
        with pytest.raises(UsageError, match=f"{path}: can't be written: ({reason})$"):
            check(path)
    assert names(tmp_path) == ["file"]


def test_checking_leaves_a_file_and_a_pipe_alone(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("old")
    reader = Reader(tmp_path / "fifo")
    for path in (tmp_path / "p.json", tmp_path / "new.json", tmp_path / "fifo", Path("-"), Path("/dev/null"), None):
        check_writable(path)
    assert names(tmp_path) == ["fifo", "p.json"]
    assert (tmp_path / "p.json").read_text() == "old"
    write_file(tmp_path / "fifo", b"the reader has seen no end")
    assert reader.content() == b"the reader has seen no end"


def test_a_pipe_that_nobody_reads_is_said_before_it_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="fifo: can't be written: it is a pipe that nobody reads; start its reader"):
        check_writable(tmp_path / "fifo")


def test_a_pipe_is_written_as_it_is_by_its_name_and_by_links(tmp_path: Path) -> None:
    for name, link in (("one", None), ("two", "to-two")):
        reader = Reader(tmp_path / name)
        path = tmp_path / name
        if link:
            path = tmp_path / link
            path.symlink_to(name)
        write_json(path, {"a": [1, None]})
        assert json.loads(reader.content()) == {"a": [1, None]}
        assert stat.S_ISFIFO(path.stat().st_mode)
    assert names(tmp_path) == ["one", "to-two", "two"]


def test_a_terminal_and_null_are_written_as_they_are(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    write_file(Path(os.ttyname(theirs)), b"on the screen\n")
    assert os.read(ours, 100) == b"on the screen\r\n"
    os.close(ours)
    os.close(theirs)
    (tmp_path / "null").symlink_to("/dev/null")
    write_file(tmp_path / "null", b"x")
    write_file(Path("/dev/null"), b"x")
    assert (tmp_path / "null").is_symlink()


def test_a_full_device_is_said_and_is_still_there(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    for path in (tmp_path / "full", Path("/dev/full")):
        with pytest.raises(UsageError, match=f"{path}: can't be written: No space left on device"):
            write_file(path, b"x")


def test_json_that_can_not_be_written_leaves_the_old(tmp_path: Path) -> None:
    write_json(None, object())
    write_json(tmp_path / "p.json", {"é": 1}, indent=2)
    assert (tmp_path / "p.json").read_text() == '{\n  "\\u00e9": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "p.json", object())
    assert json.loads((tmp_path / "p.json").read_text()) == {"é": 1}


def test_kill_9_leaves_the_old_content_and_no_visible_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("old")
    code = (
        "with new_file(Path(sys.argv[1])) as file, new_folder(Path(sys.argv[2])) as folder:\n"
        "    file.write(b'half' * 10**6)\n"
        "    (folder / 'half').touch()\n"
        "    print('go', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", BEFORE + code, str(path), str(tmp_path / "folder")]
    child = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"go\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["p.json"]
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 3
    delete_leftovers(tmp_path)
    assert names(tmp_path) == ["p.json"]


def test_two_processes_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = (
        "for turn in range(30):\n"
        "    with new_file(Path(sys.argv[1])) as file:\n"
        "        for piece in range(50):\n"
        "            file.write(sys.argv[2].encode() * 1000)\n"
    )
    path = tmp_path / "p"
    children = [subprocess.Popen([sys.executable, "-c", BEFORE + code, str(path), letter], cwd=REPO) for letter in "ab"]
    seen = set()
    while any(child.poll() is None for child in children):
        if path.exists():
            content = path.read_bytes()
            seen.add((len(content), *set(content)))
    assert [child.returncode for child in children] == [0, 0]
    assert seen <= {(50_000, ord("a")), (50_000, ord("b"))}
    assert seen
    assert names(tmp_path) == ["p"]


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000  # more than is read at once
    (tmp_path / "f").write_bytes(content)
    assert file_digest(tmp_path / "f") == hashlib.sha256(content).hexdigest()
    assert file_digest(tmp_path / "f", "md5") == hashlib.md5(content).hexdigest()
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none")


@pytest.mark.parametrize("kind", ["link", "fifo", "dangling"])
def test_a_file_of_our_own_is_never_written_through_what_was_planted(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "metrics.jsonl", tmp_path / "victim"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    write_file(path, b"ours", follow=False)
    assert (path.is_symlink(), path.read_text()) == (False, "ours")
    assert names(tmp_path) == ["metrics.jsonl", *(["victim"] if kind == "link" else [])]
    if kind == "link":
        assert victim.read_text() == "mine"

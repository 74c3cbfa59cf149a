"""ZIP archives, and disks that fill up while an archive is unpacked."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rar_files import PACKED, Stored, packed_text, rar5
from small_disk import mounted
from waiting import wait_until
from written import REPO, names

from pipelines.errors import DataError, EnvironmentProblem
from r3d_fast.download import unpacking
from r3d_fast.download.rar_readers import LIBRARY, rar_readers
from r3d_fast.download.unpacking import as_bytes, unpack


def zipped(path: Path, *members: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (mode or stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def test_a_zip_becomes_a_folder(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = zipped(tmp_path / "a.zip", ("top/", b""), ("top/a/x.txt", b"x" * 9), ("top/b/\u00fc.txt", b"y"))
    count = unpack(archive, tmp_path / "d" / "e", strip="top", on_file=lambda done, total: seen.append((done, total)))
    assert (count, seen) == (2, [(1, 3), (2, 3), (3, 3)])
    assert (tmp_path / "d" / "e" / "a" / "x.txt").read_bytes() == b"x" * 9
    assert (tmp_path / "d" / "e" / "b" / "\u00fc.txt").read_bytes() == b"y"
    assert unpack(archive, tmp_path / "whole") == 2
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["top"]
    assert unpack(archive, tmp_path / "other", strip="a") == 2
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["top"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("/etc/x", "absolute"),
        ("C:\\x", "absolute"),
        ("..\\x", "leads out"),
        ("a//x", "not a plain path"),
        ("n" * 256, "too long"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, why: str) -> None:
    archive = zipped(tmp_path / "a.zip", ("good.txt", b"x"), (name, b"x"))
    with pytest.raises(DataError, match=f"refused, nothing was unpacked: .*{why}"):
        unpack(archive, tmp_path / "in" / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_links_devices_and_zero_bytes_are_refused(tmp_path: Path) -> None:
    for mode, why in ((stat.S_IFLNK | 0o777, "link"), (stat.S_IFCHR | 0o666, "device"), (stat.S_IFIFO, "device")):
        archive = zipped(tmp_path / "a.zip", ("x", b"/etc"), mode=mode)
        with pytest.raises(DataError, match=rf"contains no file|\({why}\)"):
            unpack(archive, tmp_path / "d")
    data = zipped(tmp_path / "a.zip", ("aXb", b"x")).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"aXb", b"a\0b"))
    with pytest.raises(DataError, match="a zero byte"):
        unpack(tmp_path / "a.zip", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_damaged_and_encrypted_zips(tmp_path: Path) -> None:
    data = zipped(tmp_path / "a.zip", ("a.txt", bytes(range(256)) * 40)).read_bytes()
    flags = data.index(b"PK\1\2") + 8
    for changed, why in (
        (data[:40] + b"\xff" * 8 + data[48:], "the archive is damaged"),
        (data[:flags] + b"\1" + data[flags + 1 :], "encrypted"),
        (data[: len(data) // 2], "not a RAR archive"),
    ):
        (tmp_path / "b.zip").write_bytes(changed)
        with pytest.raises(DataError, match=why):
            unpack(tmp_path / "b.zip", tmp_path / "d")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_what_an_interrupted_call_left_is_thrown_away(tmp_path: Path) -> None:
    left = tmp_path / ".d.unpacking" / "old"
    left.mkdir(parents=True)
    (left / "x").write_text("x")
    left.chmod(0o500)
    unpack(zipped(tmp_path / "a.zip", ("new.txt", b"x")), tmp_path / "d")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["new.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "d"]


def test_no_room_is_said_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))(10**8, 10**8 - 10**7, 10**7)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem, match=r"disk is full: unpacking a\.zip needs 67\.11 MB, 10\.00 MB are free"):
        unpack(zipped(tmp_path / "a.zip", ("a.txt", b"x")), tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 kB pages with room for 64 kB."""
    with mounted(tmp_path / "disk", "size=64k") as disk:
        yield disk


@pytest.mark.parametrize("how", ["zip", "stored", LIBRARY, "bsdtar", "unar", "unrar"])
def test_a_disk_that_fills_up_leaves_nothing_half(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how not in ("zip", "stored", *rar_readers()):
        pytest.skip(f"{how} is not installed, or can't read RAR")
    # There seems to be room at first, as where another program fills the disk meanwhile.
    usage, answers = shutil.disk_usage, [type(shutil.disk_usage(tmp_path))(10**12, 0, 10**12)]
    monkeypatch.setattr("shutil.disk_usage", lambda path: answers.pop() if answers else usage(path))
    members = [(f"{i}.avi", os.urandom(20_000)) for i in range(5)]
    archive = tmp_path / "a"
    if how == "zip":
        zipped(archive, *members)
    else:
        archive.write_bytes(rar5(*(Stored(name, data) for name, data in members)))
    readers = None if how in ("zip", "stored") else [how]
    with pytest.raises(EnvironmentProblem, match=r"the disk is full: unpacking a needs 100\.00 kB") as caught:
        unpack(archive, small_disk / "d", readers=readers)
    assert caught.value.exit_code == 4
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        unpack(zipped(tmp_path / "a.zip", ("a.txt", b"x")), tmp_path / "file" / "d")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (6_932_971_618, "6.93 GB"), (2e13, "20000.00 GB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert as_bytes(count) == text


def test_kill_9_while_unpacking_leaves_no_folder(tmp_path: Path, wait: Callable[[Path], None]) -> None:
    archive = tmp_path / "a.rar"
    archive.write_bytes(rar5(*(Stored(f"{i}.avi", bytes(10_000)) for i in range(400))))
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom r3d_fast.download.unpacking import unpack\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]), on_file=lambda done, total: time.sleep(0.01))\n"
    )
    command = [sys.executable, "-c", code, str(archive), str(tmp_path / "d")]
    with subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3]) as child:
        wait(tmp_path / ".d.unpacking" / "20.avi")
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "d").exists()
    assert unpack(archive, tmp_path / "d") == 400
    assert len(list((tmp_path / "d").iterdir())) == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rar", "d"]


_UNPACKS = """
import os, sys
from contextlib import contextmanager
from pathlib import Path
from r3d_fast.download import rar_readers
from r3d_fast.download.unpacking import unpack
from r3d_fast.interrupt import end_at_once, take_interrupts

def end():
    if where == "at once":
        end_at_once("x")
    os.kill(os.getpid(), int(number))

@contextmanager
def writing(member, folder, plain=rar_readers._writing):
    with plain(member, folder) as write:
        yield lambda data: (where == "library" and member.name == "20.avi" and end(), write(data))

where, number, *readers = sys.argv[1:]
rar_readers._writing = writing
take_interrupts("x")
between = lambda done, total: where in ("between", "at once") and done == 20 and end()
unpack(Path("a.rar"), Path("d"), readers=readers or None, on_file=between)
"""


def unpacker(folder: Path, *words: object, **environment: str) -> subprocess.Popen[bytes]:
    """A process that unpacks an archive of 30 files to `folder`/d, and sends itself a signal meanwhile."""
    (folder / "a.rar").write_bytes(rar5(*(Stored(f"{i}.avi", bytes(10_000)) for i in range(30))))
    return subprocess.Popen(
        [sys.executable, "-c", _UNPACKS, *map(str, words)], cwd=folder, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPO), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("where", "readers"),
    [("between", []), ("at once", []), ("between", [LIBRARY]), ("at once", [LIBRARY]), ("library", [LIBRARY])],
)
def test_a_signal_while_unpacking_leaves_nothing_also_where_the_process_ends_at_once(
    tmp_path: Path, where: str, readers: list[str], number: int
) -> None:
    if readers and LIBRARY not in rar_readers():
        pytest.skip(f"{LIBRARY} is not installed")
    with unpacker(tmp_path, where, number, *readers) as child:
        pass
    assert child.returncode not in (0, None)
    assert names(tmp_path) == ["a.rar"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_unpacks_ends_with_the_command(
    tmp_path: Path, wait: Callable[[Path], None], number: int
) -> None:
    program = tmp_path / "bsdtar"
    program.write_text('#!/bin/sh\necho $$ > "$(dirname "$0")/pid"\ntouch "$5/20.avi"\nexec sleep 600\n')
    program.chmod(0o755)
    with unpacker(tmp_path, "program", 0, "bsdtar", PATH=f"{tmp_path}:{os.environ['PATH']}") as child:
        wait(tmp_path / ".d.unpacking" / "20.avi")
        child.send_signal(number)
    pid = Path("/proc", (tmp_path / "pid").read_text().strip())
    wait_until(lambda: not pid.exists(), "the end of the program")
    left = [".d.unpacking"] if number == signal.SIGKILL else []
    assert names(tmp_path) == [*left, "a.rar", "bsdtar", "pid"]


@pytest.fixture
def wait() -> Callable[[Path], None]:
    """Wait until a file is there."""

    def until(path: Path) -> None:
        wait_until(path.exists, f"{path}")

    return until


def test_the_packed_fixtures_are_what_they_say() -> None:
    assert len({packed_text(number) for number in range(3)}) == 3
    assert all(path.stat().st_size < 4000 for path in PACKED)


def test_an_archive_of_many_times_its_size_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "bomb.zip", *((f"{number}.avi", bytes(2**24)) for number in range(20)))
    assert archive.stat().st_size < 2**19
    with pytest.raises(
        DataError,
        match=r"bomb\.zip: refused, nothing was unpacked: 20 files and folders of 335\.54 MB in an archive of ",
    ):
        unpack(archive, tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.zip"]


def test_lists_that_shrink_to_a_hundredth_are_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "lists.zip", ("trainlist01.txt", b"a/v_a_g01_c01.avi 1\n" * 500_000))
    assert archive.stat().st_size < 100_000
    assert unpack(archive, tmp_path / "d") == 1


def test_an_archive_of_more_files_than_any_data_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 3)  # a million take a minute to write
    archive = zipped(tmp_path / "many.zip", *((f"{number}.avi", b"") for number in range(4)))
    with pytest.raises(DataError, match=r"4 files and folders of 0 bytes in an archive of .*; expected at most 3 of"):
        unpack(archive, tmp_path / "d")

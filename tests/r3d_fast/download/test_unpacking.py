"""ZIP archives, and disks that fill up while an archive is unpacked."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rar_files import PACKED, Stored, packed_text, rar5
from small_disk import mounted

from pipelines.errors import DataError, EnvironmentProblem
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


@pytest.fixture
def wait() -> Callable[[Path], None]:
    """Wait until a file is there."""

    def until(path: Path) -> None:
        for _ in range(3000):
            if path.exists():
                return
            time.sleep(0.01)
        raise AssertionError(f"{path} did not come")

    return until


def test_the_packed_fixtures_are_what_they_say() -> None:
    assert len({packed_text(number) for number in range(3)}) == 3
    assert all(path.stat().st_size < 4000 for path in PACKED)

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from pipelines import file_bytes
from pipelines.file_bytes import FileBytes, checksum_of, read_exactly

CONTENT = np.random.default_rng(0).bytes(1000)


@pytest.fixture(params=[16, 100, 1000, 5000])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 1000 bytes, which is read in windows of several sizes."""
    monkeypatch.setattr(file_bytes, "_WINDOW", request.param)
    (tmp_path / "v").write_bytes(CONTENT)
    return tmp_path / "v"


def test_any_bytes_are_those_of_the_file(path: Path) -> None:
    random = np.random.default_rng(1)
    with FileBytes(path) as file:
        assert file.size == 1000
        for at, length in [
            (0, 1000),
            (990, 50),
            (1000, 1),
            (5000, 5),
            (-1, 5),
            (3, 0),
            *random.integers(0, 999, (200, 2)),
        ]:
            expected = CONTENT[int(at) : int(at + length)] if at >= 0 else b""
            assert bytes(file.read(int(at), int(length))) == expected


def test_windows_cover_the_file_and_overlap(path: Path) -> None:
    with FileBytes(path) as file:
        pieces = [(at, data.tobytes()) for at, data in file.windows(overlap=4)]
        assert all(CONTENT[at : at + len(data)] == data for at, data in pieces)
        whole = b"".join(data[: file_bytes._WINDOW] for _, data in pieces)
        assert whole == CONTENT
        starts = [at for at, _ in pieces]
        assert all(int(file.window_of(np.array([at]))[0]) in starts for at in range(1000))


def test_the_checksum_is_that_of_all_bytes(path: Path) -> None:
    with FileBytes(path) as file:
        assert file.checksum() == f"{zlib.crc32(CONTENT):08x}"


def test_a_checksum_is_computed_again_where_the_time_differs(tmp_path: Path) -> None:
    path = tmp_path / "v"
    for time, content in enumerate((b"one", b"two")):
        path.write_bytes(content)
        assert checksum_of(str(path), time) == f"{zlib.crc32(content):08x}"
    path.unlink()
    assert checksum_of(str(path), 1) == f"{zlib.crc32(b'two'):08x}"
    with pytest.raises(FileNotFoundError):
        checksum_of(str(path), 2)


def test_reading_exactly_goes_on_where_the_system_gives_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v").write_bytes(CONTENT)
    pread = os.pread
    for most in (1, 7, 300, 5000):
        with (tmp_path / "v").open("rb") as file, monkeypatch.context() as patch:
            patch.setattr(
                os, "pread", lambda descriptor, length, at, most=most: pread(descriptor, min(length, most), at)
            )
            for at, length in ((0, 1000), (300, 500), (999, 1), (1000, 0)):
                assert read_exactly(file.fileno(), length, at) == CONTENT[at : at + length]
            for at, length in ((0, 1001), (999, 2), (1000, 1)):
                with pytest.raises(EOFError):
                    read_exactly(file.fileno(), length, at)


def test_the_file_is_closed(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with FileBytes(path) as file:
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        file.read(0, 5)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_bytes_that_are_held_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "_WINDOW", 100)
    (tmp_path / "v").write_bytes(CONTENT)
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def counted(descriptor: int, length: int, at: int) -> bytes:
        reads.append((at, length))
        return pread(descriptor, length, at)

    monkeypatch.setattr(os, "pread", counted)
    with FileBytes(tmp_path / "v") as file:
        for at, length in ((50, 10), (50, 100), (149, 1), (60, 0), (60, 90)):
            file.read(at, length)
        assert reads == [(50, 100)]
        for at, length in ((49, 1), (149, 1), (148, 2), (950, 90), (2000, 5)):
            file.read(at, length)
        assert reads == [(50, 100), (49, 100), (149, 100), (148, 100), (950, 50), (2000, 0)]
        file.read(0, 101)  # more than is held at once: not kept
        file.read(0, 100)
        file.read(99, 1)
        assert reads[6:] == [(0, 101), (0, 100)]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "v").touch()
    os.truncate(tmp_path / "v", 1 << 30)
    code = (
        "import sys; from pathlib import Path; from pipelines.file_bytes import FileBytes\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "with FileBytes(sys.argv[1]) as file: file.checksum()\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "v"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 * 1024  # KiB, of a file of 1 GiB

"""RAR headers, and what unpacks RAR archives: the library and every tool that is installed."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from rar_files import PACKED, Stored, block4, folder, packed_text, rar4, rar5

from pipelines.errors import DataError, EnvironmentProblem
from r3d_fast.download.rar import read_members
from r3d_fast.download.rar_readers import LIBRARY, TO_DO, rar_readers
from r3d_fast.download.unpacking import unpack

WRITERS = {"rar4": rar4, "rar5": rar5}
FILES = [
    folder("UCF-101"),
    Stored("UCF-101/Lunges/v_Lunges_g01_c01.avi", b"lunge" * 300),
    Stored("UCF-101/Punch/#20 - [\u00fc\u4e2d] (1)!.avi", bytes(range(256)) * 50),
    Stored("UCF-101/Punch/empty.avi"),
]


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> object:
    return WRITERS[request.param]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_headers_say_all_that_will_be_written(tmp_path: Path, name: str) -> None:
    members = read_members(saved(tmp_path / "a.rar", WRITERS[name](*FILES)))
    assert [(m.name, m.kind, m.size) for m in members] == [
        ("UCF-101", "folder", 0), *((f.name, "file", len(f.data)) for f in FILES[1:])
    ]  # fmt: skip
    assert [m.crc for m in members[1:]] == [zlib.crc32(f.data) for f in FILES[1:]]
    assert all(m.is_stored for m in members[1:])


def test_names_that_rar_4_shortens(tmp_path: Path) -> None:
    # Four pairs of bits a byte: 00 a byte, 01 a byte of the high half 4, 10 two bytes, 11 what the plain name has.
    plain, encoded = b"a?b-cdefgh.avi", b"\x04" + b"\x1b" + b"a" + b"\x34" + b"\x2d\x4e" + b"\x00" + b"\xc0" + b"\x07"
    name = plain + b"\0" + encoded
    body = struct.pack("<IIBIIBBHI", 1, 1, 3, zlib.crc32(b"x"), 0, 29, 0x30, len(name), stat.S_IFREG | 0o644) + name
    archive = rar4(end=False) + block4(0x74, 0x8200, body) + b"x"
    (member,) = read_members(saved(tmp_path / "a.rar", archive))
    assert member.name == "a\u0434\u4e2d-cdefgh.avi"


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = "Caf\u00e9 1.avi".encode("cp1252")
    body = struct.pack("<IIBIIBBHI", 1, 1, 2, zlib.crc32(b"x"), 0, 29, 0x30, len(name), 0x20) + name
    archive = rar4(end=False) + block4(0x74, 0x8000, body) + b"x"
    assert [m.name for m in read_members(saved(tmp_path / "a.rar", archive))] == ["Caf\u00e9 1.avi"]


def test_a_packed_comment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no tool that could unpack it
    comment = struct.pack("<IIBIIBBHI", 4, 9, 3, 0, 0, 29, 0x33, 3, 0) + b"CMT"
    archive = rar4(end=False) + block4(0x7A, 0x8000, comment) + b"four" + rar4(FILES[1])[20:]
    assert unpack(saved(tmp_path / "a.rar", archive), tmp_path / "v") == 1


def test_a_file_that_goes_on_in_another_volume(tmp_path: Path) -> None:
    for flags in (0x8001, 0x8002):
        body = struct.pack("<IIBIIBBHI", 1, 1, 2, zlib.crc32(b"x"), 0, 29, 0x30, 1, 0x20) + b"a"
        archive = rar4(end=False) + block4(0x74, flags, body) + b"x"
        with pytest.raises(DataError, match=r"a\.rar: a file continues in another volume"):
            read_members(saved(tmp_path / "a.rar", archive))


def test_a_rar_that_ends_with_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("inner.txt", "x")
    data = (tmp_path / "z.zip").read_bytes()
    archive = saved(tmp_path / "a.rar", rar4(Stored("z.zip", data), end=False))
    assert zipfile.is_zipfile(archive)
    unpack(archive, tmp_path / "d")
    assert contents(tmp_path / "d") == {"z.zip": data}


@pytest.mark.parametrize("archive", PACKED, ids=lambda path: path.stem)
def test_headers_of_packed_files(archive: Path) -> None:
    members = read_members(archive)
    assert [m.name for m in members] == [f"UCF-101/Class{i}/v_\u00fc{i}.avi" for i in range(3)]
    assert [(m.size, m.crc) for m in members] == [(len(t), zlib.crc32(t)) for t in map(packed_text, range(3))]
    assert not any(m.is_stored for m in members)


@pytest.mark.parametrize("name", WRITERS)
def test_stored_files_need_no_reader(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.download.unpacking.rar_readers", list)
    archive = saved(tmp_path / "a.rar", WRITERS[name](*FILES))
    assert unpack(archive, tmp_path / "videos", strip="UCF-101") == 3
    assert contents(tmp_path / "videos") == {f.name.removeprefix("UCF-101/"): f.data for f in FILES[1:]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rar", "videos"]


@pytest.mark.parametrize("reader", [LIBRARY, "unrar", "bsdtar", "unar", "7zz", "7z"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_reader_that_is_installed(tmp_path: Path, name: str, reader: str) -> None:
    if reader not in rar_readers():
        pytest.skip(f"{reader} is not installed, or can't read RAR")
    archive = saved(tmp_path / "a.rar", WRITERS[name](*FILES))
    assert unpack(archive, tmp_path / "videos", strip="UCF-101", readers=[reader]) == 3
    assert contents(tmp_path / "videos") == {f.name.removeprefix("UCF-101/"): f.data for f in FILES[1:]}
    wrong = [*FILES[:1], FILES[1]._replace(crc=1), *FILES[2:]]
    with pytest.raises(DataError, match=f"can't be unpacked: {reader}"):
        unpack(saved(tmp_path / "b.rar", WRITERS[name](*wrong)), tmp_path / "wrong", readers=[reader])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rar", "b.rar", "videos"]


@pytest.mark.parametrize("archive", PACKED, ids=lambda path: path.stem)
def test_packed_files(tmp_path: Path, archive: Path) -> None:
    readers = rar_readers()
    if LIBRARY not in readers and not {"unrar", "bsdtar"} & set(readers):
        pytest.skip("nothing here unpacks RAR: pip install 'r3d-fast[download]'")
    if readers[0] == "bsdtar" and archive.stem == "rar4-solid":
        pytest.skip("bsdtar can't read solid archives of RAR 4")
    assert unpack(archive, tmp_path / "v", strip="UCF-101") == 3
    assert contents(tmp_path / "v") == {f"Class{i}/v_\u00fc{i}.avi": packed_text(i) for i in range(3)}


def test_a_reader_that_fails_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "bin" / "bsdtar"
    failing.parent.mkdir()
    failing.write_text('#!/bin/sh\necho "it does not like $4" >&2\nexit 3\n')
    failing.chmod(0o755)
    unpacking = tmp_path / "bin" / "unar"  # its fifth argument is the folder
    unpacking.write_text('#!/bin/sh\n[ -z "$(ls "$5")" ] && mkdir "$5/UCF-101" && printf lunge > "$5/UCF-101/a.avi"\n')
    unpacking.chmod(0o755)
    monkeypatch.setenv("PATH", f"{failing.parent}{os.pathsep}{os.environ['PATH']}")
    archive = saved(tmp_path / "a.rar", rar5(Stored("UCF-101/a.avi", b"lunge")))
    assert unpack(archive, tmp_path / "v", readers=["bsdtar", "unar"]) == 1
    assert contents(tmp_path / "v") == {"UCF-101/a.avi": b"lunge"}
    with pytest.raises(
        DataError, match=r"can't be unpacked: bsdtar ended with exit code 3: it does not like .*; download it again"
    ):
        unpack(archive, tmp_path / "w", readers=["bsdtar"])


def test_no_reader_is_said_with_the_line_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no program here unpacks RAR archives; install one: ") as caught:
        unpack(PACKED[0], tmp_path / "v", readers=[])
    assert TO_DO in str(caught.value)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_an_unrar_that_is_not_rarlabs_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, counts in (("unrar-free 0.1.3", False), ("UNRAR 6.21 freeware  Copyright (c) Alexander Roshal", True)):
        program = tmp_path / "unrar"
        program.write_text(f'#!/bin/sh\necho "{said}"\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/bin")
        assert ("unrar" in rar_readers()) == counts


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("member", "why"),
    [
        (Stored("../out.avi", b"x"), "leads out of the folder"),
        (Stored("a/../../out.avi", b"x"), "leads out of the folder"),
        (Stored("/tmp/out.avi", b"x"), "absolute"),
        (Stored("C:/out.avi", b"x"), "absolute"),
        (Stored("a/./b.avi", b"x"), "not a plain path"),
        (Stored("..", b"x"), "leads out of the folder"),
        (Stored("link", b"/etc", stat.S_IFLNK | 0o777), "link"),
        (Stored("n" * 300, b"x"), "too long"),
    ],
    ids=lambda value: value.name[:12] if isinstance(value, Stored) else "",
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, member: Stored, why: str) -> None:
    archive = saved(tmp_path / "a.rar", WRITERS[name](FILES[1], member))
    with pytest.raises(DataError, match=rf"refused, nothing was unpacked: .* \({why}\)"):
        unpack(archive, tmp_path / "in" / "v")
    assert [path.name for path in tmp_path.iterdir()] == ["a.rar"]


def test_devices_and_zero_bytes_are_refused(tmp_path: Path) -> None:
    for member, why in (
        (Stored("null", b"", stat.S_IFCHR | 0o666), "device"),
        (Stored("pipe", b"", stat.S_IFIFO | 0o666), "device"),
    ):
        for write in (rar4, rar5):
            with pytest.raises(DataError, match=rf"\({why}\)"):
                unpack(saved(tmp_path / "a.rar", write(FILES[1], member)), tmp_path / "v")
    for name in ("a\0b", "a\0a", f"{'a' * 200}\0b"):
        for write in (rar4, rar5):
            with pytest.raises(DataError, match=r"\(a zero byte\)"):
                unpack(saved(tmp_path / "a.rar", write(FILES[1], Stored(name, b"x"))), tmp_path / "v")


@pytest.mark.parametrize("name", WRITERS)
def test_archives_that_can_not_be_used(tmp_path: Path, name: str) -> None:
    write = WRITERS[name]
    whole = write(*FILES)
    for data, why in (
        (write(*FILES, volume=True), "one volume of several"),
        (write(*FILES, headers_encrypted=True), "headers are encrypted"),
        (write(Stored("a", b"x", encrypted=True)), "files are encrypted"),
        (write(folder("a")), "contains no file"),
        (write(FILES[1], FILES[1]), "collides with an earlier file"),
        (write(Stored("a", b"x"), Stored("a/b", b"x")), "collides with an earlier file"),
        (write(Stored("a/b", b"x"), Stored("a", b"x")), "collides with an earlier file"),
        (whole[: len(whole) // 2], "cut short or damaged"),
        (whole[:30], "cut short or damaged"),
        (whole[:25] + b"\xff" + whole[26:], "cut short or damaged: Header CRC error"),
        (b"", "not a RAR archive"),
        (b"<html>not found</html>", "not a RAR archive"),
    ):
        with pytest.raises(DataError, match=why) as caught:
            unpack(saved(tmp_path / "a.rar", data), tmp_path / "v")
        assert caught.value.exit_code == 3
        assert [path.name for path in tmp_path.iterdir()] == ["a.rar"]


@pytest.mark.parametrize("name", WRITERS)
def test_any_damage_is_an_error_or_does_no_harm(tmp_path: Path, name: str) -> None:
    whole = WRITERS[name](*FILES[:2], end=False)
    for at in range(0, len(whole), 7):
        archive = saved(tmp_path / "a.rar", whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            unpack(archive, tmp_path / "v", strip="UCF-101")
        except DataError:
            assert not (tmp_path / "v").exists()
            continue
        assert set(contents(tmp_path / "v")) <= {"Lunges/v_Lunges_g01_c01.avi"}
        (tmp_path / "v").rename(tmp_path / f"v{at}")
    assert not (tmp_path.parent / "out.avi").exists()

"""Every kind of file is cut at many places, and what is said of it is compared with the packets that are left."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from cut_files import LAYOUTS, Demuxed, Layout, demux, write_layout
from waiting import little_work

from pipelines.containers.completeness import Completeness, completeness
from pipelines.containers.formats import header_bytes

UNTOLD = {"mpegts", "nut"}  # containers that say neither how long they are nor how long their last picture is
STEP = 5  # percent of a file


def judge(path: Path, found: Demuxed) -> Completeness:
    return completeness(str(path), found.format, found.entries)


def cut(path: Path, size: int) -> tuple[Demuxed, Completeness]:
    """What is left in, and said of, the first `size` bytes of the file at `path`."""
    part = path.with_name("part")
    part.write_bytes(path.read_bytes()[:size])
    found = demux(part)
    return found, judge(part, found)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    return {name: write_layout(folder / f"{number}.bin", LAYOUTS[name]) for number, name in enumerate(LAYOUTS)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_as_its_tool_wrote_it_is_whole(name: str, files: dict[str, Path]) -> None:
    found = demux(files[name])
    assert len(found.packets) == 48
    assert not judge(files[name], found).missing


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_that_ends_within_a_picture_is_not(name: str, files: dict[str, Path]) -> None:
    whole, data = demux(files[name]), files[name].read_bytes()
    places = 0
    for packet in whole.packets[1::4]:
        middle = data.find(packet[len(packet) // 2 :][:16])  # the container may have split the packet
        try:
            found, said = cut(files[name], middle + 8)
        except av.FFmpegError:
            continue  # the header is at the end
        assert found.packets != whole.packets
        assert bool(said.missing) == (name not in UNTOLD), (middle, said)
        places += 1
    assert places >= 11 or name in ("mp4", "mp4 with sound", "mov", "avi", "avi with sound", "rm")


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_said_of_a_file_cut_anywhere_is_right(name: str, files: dict[str, Path]) -> None:
    whole, size = demux(files[name]), files[name].stat().st_size
    layout = LAYOUTS[name]
    for percent in range(STEP, 100, STEP):
        try:
            found, said = cut(files[name], size * percent // 100 | 7)  # packs of MPEG end at even bytes
        except av.FFmpegError:
            continue
        lost = found.packets != whole.packets
        if said.missing:
            # Of most containers it can't be told whether pictures, sound or filling would have followed.
            assert lost or layout.sound or layout.container in ("asf", "mxf"), (percent, said)
        elif lost:
            assert name in UNTOLD or not layout.seekable, (percent, said)


@pytest.mark.parametrize("name", ["avi", "avi with sound", "mkv", "mkv with sound", "webm", "mp4 in fragments", "flv"])
def test_only_an_index_is_cut(name: str, files: dict[str, Path]) -> None:
    data, whole = files[name].read_bytes(), demux(files[name])
    begin = {"avi": b"idx1", "matroska": b"\x1c\x53\xbb\x6b", "mov": b"mfra", "flv": None}[whole.format]
    start = data.rfind(begin) - (4 if begin == b"mfra" else 0) if begin else len(data) - 4
    for size in np.linspace(start, len(data) - 1, 12).astype(int).tolist():
        found, said = cut(files[name], size)
        assert found.packets == whole.packets
        assert not said.missing, size
        assert said.remarks or whole.format in ("mov", "flv"), size


def test_how_much_is_missing_is_said(files: dict[str, Path]) -> None:
    size = files["mkv"].stat().st_size
    _, said = cut(files["mkv"], size - 30_000)
    assert said.missing == f"its last 30 KB of {size / 1000:.0f} KB are missing"
    _, said = cut(files["ivf"], files["ivf"].stat().st_size - 1)
    assert said.missing == "it ends in the middle of a frame"


class TestAvi:
    """The sizes in the header of an AVI are wrong in many whole files."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_layout(tmp_path / "v.avi", LAYOUTS["avi with sound"])

    @pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 50_000, 10_000_000])
    @pytest.mark.parametrize("movi", [None, 0, 0xFFFFFFFF, 10_000_000])
    def test_a_size_in_the_header_is_wrong(self, riff: int, movi: int | None, path: Path) -> None:
        data, whole = bytearray(path.read_bytes()), demux(path)
        at = data.find(b"movi")
        data[4:8] = riff.to_bytes(4, "little")
        data[at - 4 : at] = movi.to_bytes(4, "little") if movi is not None else data[at - 4 : at]
        path.write_bytes(data)
        assert demux(path).packets == whole.packets
        assert judge(path, whole) == Completeness()
        index = data.rfind(b"idx1")
        _, said = cut(path, index)
        assert said == Completeness(remarks=("index missing",))
        _, said = cut(path, index - 20_000)
        assert said.missing

    def test_sound_goes_on_after_the_last_picture(self, tmp_path: Path) -> None:
        path = write_layout(tmp_path / "v.avi", LAYOUTS["avi with sound"], seconds_of_sound=4)
        whole = demux(path)
        found, said = cut(path, path.read_bytes().rfind(b"idx1") - 8_000)
        assert found.packets == whole.packets
        assert not said.missing

    @pytest.mark.parametrize("indexed", [False, True])
    def test_it_has_several_riffs(self, indexed: bool, path: Path) -> None:
        data = bytearray(path.read_bytes())
        whole = demux(path)
        movi, index = data.find(b"movi") + 4, data.rfind(b"idx1")
        middle = data.find(b"00dc", (movi + index) // 2)
        second = b"LIST" + (4 + index - middle).to_bytes(4, "little") + b"movi" + data[middle:index]
        first_size = middle - 8
        if indexed:  # a super index in the place that FFmpeg leaves for it
            junk = data.find(b"JUNK")
            entry = (middle + 12 + len(second) - 64).to_bytes(8, "little") + (64).to_bytes(4, "little") + bytes(4)
            data[junk : junk + 4] = b"indx"
            data[junk + 8 : junk + 32 + 16] = b"\4\0\0\0" + (1).to_bytes(4, "little") + b"00dc" + bytes(12) + entry
        data[movi - 8 : movi - 4] = (4 + middle - movi).to_bytes(4, "little")
        data[4:8] = first_size.to_bytes(4, "little")
        riff = b"RIFF" + (4 + len(second)).to_bytes(4, "little") + b"AVIX" + second
        path.write_bytes(bytes(data[:middle]) + riff)
        assert not judge(path, whole).missing
        _, said = cut(path, path.stat().st_size - 3_000)
        assert said.missing
        _, said = cut(path, middle)
        assert bool(said.missing) == indexed  # nothing else says that there was a second RIFF


class TestMp4:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_layout(tmp_path / "v.mp4", LAYOUTS["mp4, header first"])

    @pytest.mark.parametrize("wide", [False, True])
    def test_its_data_have_another_form_of_size(self, wide: bool, path: Path) -> None:
        data, whole = bytearray(path.read_bytes()), demux(path)
        at = data.find(b"mdat") - 4
        size = int.from_bytes(data[at : at + 4], "big")
        if wide:  # over the box of 8 bytes that FFmpeg leaves for that
            assert data[at - 4 : at] == b"free"
            data[at - 8 : at + 8] = b"\0\0\0\1mdat" + (size + 8).to_bytes(8, "big")
        else:
            data[at : at + 4] = bytes(4)
        path.write_bytes(data)
        assert demux(path).packets == whole.packets
        assert judge(path, whole) == Completeness()
        assert cut(path, len(data) - 10_000)[1].missing

    def test_an_edit_list_hides_what_is_missing(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = data.find(b"elst") + 12
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") // 4).to_bytes(4, "big")
        path.write_bytes(data)
        shown = demux(path)
        assert len(shown.entries) < 48
        found, said = cut(path, len(data) * 3 // 4)
        assert found.packets == shown.packets
        assert said == Completeness()

    def test_other_boxes_are_cut(self, path: Path) -> None:
        whole, data = demux(path), path.read_bytes()
        path.write_bytes(data + b"\0\0\4\0free" + bytes(100))
        assert judge(path, whole) == Completeness(remarks=("something cut short behind the frames",))
        path.write_bytes(data + b"\0\0")
        assert judge(path, whole) == Completeness()

    def test_an_index_of_segments_says_that_one_is_missing(self, tmp_path: Path) -> None:
        layout = Layout("mp4", "libx264", options={"movflags": "cmaf+frag_keyframe+global_sidx"})
        path = write_layout(tmp_path / "v.mp4", layout)
        data = path.read_bytes()
        assert not judge(path, demux(path)).missing
        _, said = cut(path, data.rfind(b"moof") - 4)
        assert said.missing


def test_a_huge_file_costs_no_time_and_no_memory(tmp_path: Path) -> None:
    avi, mp4 = tmp_path / "v.avi", tmp_path / "v.mp4"
    data = write_layout(avi, LAYOUTS["avi"]).read_bytes()
    movi, size = data.find(b"movi"), 2_600_000_000
    head = data[: movi - 4] + size.to_bytes(4, "little") + data[movi : movi + 4]
    with avi.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size - 4)
    with mp4.open("wb") as file:
        file.write(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\1mdat" + size.to_bytes(8, "big"))
        file.truncate(16 + size)
    tracemalloc.start()
    with little_work(0.5):
        assert completeness(str(avi), "avi") == Completeness(remarks=("index missing",))
        assert completeness(str(mp4), "mov", [(32 + 1000 * k, 1000) for k in range(1000)]) == Completeness()
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_mutated_files_are_judged_quickly_and_never_raise(files: dict[str, Path], tmp_path: Path) -> None:
    draws = np.random.default_rng(16)
    names = sorted({demux(path).format for path in files.values()})
    path = tmp_path / "mutated"
    for number, (name, source) in enumerate(6 * list(files.items())):
        data = bytearray(source.read_bytes())
        for _ in range(1 + number % 8):
            at = int(draws.integers(0, min(len(data), 4_000 if number % 2 else len(data))))
            data[at : at + 8] = draws.choice([bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7, draws.bytes(8)])
        path.write_bytes(data)
        for form in names if number % 20 == 0 else [demux(source).format]:
            with little_work(1.0, f"{name} read as {form}"):
                completeness(str(path), form, [(1 << 62, 1 << 62)] if number % 3 == 0 else [])


ENDLESS = [
    ("mov", b"", b"\0\0\0\x08free"),
    ("avi", b"RIFF\0\0\0\0AVI LIST\0\0\0\0movi", b"00dc\0\0\0\0"),
    ("avi", b"RIFF\0\0\0\0AVI ", b"RIFF\xff\xff\xff\xffAVI "),
    ("matroska", b"\x18\x53\x80\x67\xff\x1f\x43\xb6\x75\xff", b"\xa3\x80"),
    ("matroska", b"\x18\x53\x80\x67\xff", b"\x1f\x43\xb6\x75\xff"),
    ("flv", b"FLV\1\1\0\0\0\x09\0\0\0\0", b"\x09" + bytes(14)),
    ("mpeg", b"", b"\0\0\1\xba\x44" + bytes(9)),
    ("ogg", b"", b"OggS\0"),
    ("ivf", b"DKIF\0\0\x20\0" + bytes(24), bytes(12)),
]


@pytest.mark.parametrize(("form", "head", "unit"), ENDLESS)
def test_a_file_of_endless_headers_is_given_up(
    form: str, head: bytes, unit: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v"
    path.write_bytes(head + unit * 600_000 + b"x" * 20)
    if form != "mov":  # one of them with the real limit, which takes seconds
        monkeypatch.setattr(header_bytes, "MOST_READS", 20_000)
    with little_work(10.0):
        assert completeness(str(path), form) == Completeness()


def test_a_header_of_many_streams_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    lists = b"LIST\x04\0\0\0strl" * 100_000
    header = b"LIST" + (4 + len(lists)).to_bytes(4, "little") + b"hdrl" + lists
    path.write_bytes(b"RIFF\0\0\0\0AVI " + header + b"LIST\xff\xff\xff\x7fmovi")
    with little_work(2.0):
        assert completeness(str(path), "avi").missing


def test_unknown_and_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"\0")
    for form in ("avi", "mov", "matroska", "flv", "ogg", "asf", "mpeg", "mpegts", "mxf", "ivf", "rm", "gxf", "other"):
        assert completeness(str(path), form) == Completeness()
    with pytest.raises(FileNotFoundError):
        completeness(str(tmp_path / "none"), "avi")

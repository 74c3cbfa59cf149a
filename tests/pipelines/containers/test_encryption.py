from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from cut_files import ENCRYPTED, LAYOUTS, write_layout
from waiting import little_work

from pipelines.containers.encryption import encryption_scheme
from pipelines.containers.formats.ebml import TRACKS, Element, element_at, elements, segment, video_track
from pipelines.containers.formats.header_bytes import HeaderBytes


def said(path: Path) -> str:
    with av.open(str(path)) as container:
        return encryption_scheme(str(path), container.format.name.split(",")[0], container.streams.video[0].id)


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_files_are_not_encrypted(name: str, tmp_path: Path) -> None:
    assert said(write_layout(tmp_path / "v", LAYOUTS[name], num_frames=8)) == ""


@pytest.mark.parametrize("scheme", ["cenc", "cens", "cbc1", "cbcs"])
def test_mp4_by_the_scheme_that_it_names(scheme: str, tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.mp4", ENCRYPTED)
    path.write_bytes(path.read_bytes().replace(b"cenc", scheme.encode()))
    assert said(path) == scheme


def test_mp4_with_encrypted_sound_only(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.mp4", ENCRYPTED)
    data = path.read_bytes()
    assert b"enca" in data
    path.write_bytes(data.replace(b"encv", b"avc1"))
    assert said(path) == ""


def test_mp4_of_apple_without_a_scheme(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.mp4", ENCRYPTED)
    path.write_bytes(path.read_bytes().replace(b"encv", b"drmi").replace(b"sinf", b"free"))
    assert encryption_scheme(str(path), "mov", 1) == "drmi"
    assert encryption_scheme(str(path), "mov", 2) == ""  # the sound


def test_mp4_in_fragments(tmp_path: Path) -> None:
    layout = ENCRYPTED._replace(options={**ENCRYPTED.options, "movflags": "frag_keyframe+empty_moov"})
    assert said(write_layout(tmp_path / "v.mp4", layout)) == "cenc"


def test_webm(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.webm", LAYOUTS["webm, live"])
    data = bytearray(path.read_bytes())
    with HeaderBytes(str(path)) as file:
        top = segment(file)
        assert top is not None
        tracks = next(child for child in elements(file, top) if child.id == TRACKS)
        track = video_track(file, tracks)
        assert track is not None
        at = track.end
    for kind, scheme in ((1, "WebM encryption"), (0, "")):  # 0 is compression, as by mkvmerge
        encodings = b"\x6d\x80\x87" + b"\x62\x40\x84" + b"\x50\x33\x81" + bytes([kind])
        changed = data[:at] + encodings + data[at:]
        for element in (tracks, track):
            grow(changed, element, len(encodings))
        path.write_bytes(changed)
        with av.open(str(path)) as container:
            assert len(container.streams) == 2
        assert said(path) == scheme


def grow(data: bytearray, element: Element, count: int) -> None:
    """Write the size of `element` as `count` bytes more, in as many bytes as it has."""
    assert element.end is not None
    begin = element.start + (4 if element.id > 0xFFFFFF else 1)
    width = element.data - begin
    size = element.end - element.data + count | 1 << 7 * width
    data[begin : element.data] = size.to_bytes(width, "big")


def test_asf(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.wmv", LAYOUTS["asf"])
    codecs = bytes.fromhex("4052d1861d31d011a3a400a0c90348f6")  # the Codec List Object, which no decoder needs
    data = path.read_bytes()
    assert codecs in data
    for guid in ("fbb3112223bdd211b4b700a0c955fc6e", "14e68a292226174cb935dae07ee9289c"):
        path.write_bytes(data.replace(codecs, bytes.fromhex(guid)))
        assert encryption_scheme(str(path), "asf", 1) == "Windows Media DRM"


@pytest.mark.parametrize("width", [188, 192])
def test_transport_stream(width: int, tmp_path: Path) -> None:
    path = write_layout(tmp_path / "v.ts", LAYOUTS["mpegts"])
    with av.open(str(path)) as container:
        pids = [stream.id for stream in container.streams]
    packets = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 188).copy()
    pid = (packets[:, 1].astype(int) << 8 | packets[:, 2]) & 0x1FFF
    for scrambled, expected in ((pids[0], "scrambled"), (pids[1], "")):
        marked = packets.copy()
        marked[pid == scrambled, 3] |= 0x80
        path.write_bytes(np.pad(marked, ((0, 0), (width - 188, 0))).tobytes())
        assert encryption_scheme(str(path), "mpegts", pids[0]) == expected
    damaged = packets.copy()
    damaged[np.flatnonzero(pid == pids[0])[3], 3] |= 0x80  # one packet: an error of the reception
    path.write_bytes(damaged.tobytes())
    assert said(path) == ""


def test_mutated_headers_are_read_quickly_and_never_raise(tmp_path: Path) -> None:
    draws, path = np.random.default_rng(5), tmp_path / "v"
    files = [
        (form, write_layout(tmp_path / form, layout, num_frames=8).read_bytes())
        for form, layout in (
            ("mov", ENCRYPTED._replace(options={**ENCRYPTED.options, "movflags": "empty_moov+frag_keyframe"})),
            ("matroska", LAYOUTS["mkv"]),
            ("asf", LAYOUTS["asf"]),
            ("mpegts", LAYOUTS["mpegts"]),
        )
    ]
    for number in range(200):
        form, data = files[number % len(files)]
        changed = bytearray(data)
        for at in draws.integers(0, 2_000, 1 + number % 5).tolist():
            changed[at : at + 4] = draws.choice([bytes(4), b"\xff" * 4, draws.bytes(4)])
        path.write_bytes(changed)
        with little_work(1.0):
            encryption_scheme(str(path), form, int(draws.integers(0, 300)))
    for content in (b"", b"\0", b"G" * 1000):
        path.write_bytes(content)
        for form in ("mov", "matroska", "asf", "mpegts", "avi"):
            assert encryption_scheme(str(path), form, 1) == ""
    with HeaderBytes(str(path)) as file:
        assert element_at(file, 0) is not None
    with pytest.raises(FileNotFoundError):
        encryption_scheme(str(tmp_path / "none"), "mov", 1)

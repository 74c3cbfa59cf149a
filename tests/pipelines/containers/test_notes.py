from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import oddities
import pytest
from clips import write_cover_before_video, write_stamped_video
from exact import boxes
from timed_video import write_with_times

from pipelines.containers import notes
from pipelines.errors import VideoError
from pipelines.video.probe import probe_video

WIDE = Fraction(4, 3)
PQ, HLG, BT2020 = 16, 18, 9


def noted(path: Path, **options: bool) -> set[str]:
    return set(probe_video(path, **options).notes)


def with_video_properties(path: Path, across: int, down: int) -> Path:
    """The AVI with a `vprp` chunk: the picture is shown `across` : `down` (OpenDML AVI File Format Extensions, 5.0)."""
    whole, field = (0, 0, 25, 128, 96, across << 16 | down, 128, 96, 1), (96, 128, 96, 128, 0, 0, 0, 0)
    chunk = struct.pack("<4s18I", b"vprp", 68, *whole, *field)
    data = bytearray(path.read_bytes())
    form = data.index(b"strf")
    at = form + 8 + int.from_bytes(data[form + 4 : form + 8], "little")
    for list_kind in (b"AVI ", b"hdrl", b"strl"):
        size = data.index(list_kind) - 4
        data[size : size + 4] = (int.from_bytes(data[size : size + 4], "little") + len(chunk)).to_bytes(4, "little")
    data[at:at] = chunk
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", ["v.avi", "v.mp4", "v.mov", "v.mkv", "v.ts", "v.mpg", "v.flv", "v.webm", "v.ogv", "v.wmv", "v.mxf"]
)
def test_of_a_plain_video_nothing_is_odd(tmp_path: Path, name: str) -> None:
    codec = {"webm": "libvpx", "ogv": "libvpx", "wmv": "wmv2", "mxf": "mpeg2video", "mpg": "mpeg2video"}
    form = {"ogv": "ogg", "wmv": "asf"}.get(name[2:])
    path = oddities.write_set(
        tmp_path / name, codec.get(name[2:], "mpeg4" if name == "v.avi" else "libx264"), form=form
    )
    assert noted(path) == set()


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("mpeg4", "avi"),
        ("mpeg4", "mp4"),
        ("mjpeg", "avi"),
        ("mpeg2video", "mpg"),
        ("libx264", "ts"),
        ("libx264", "mkv"),
    ],
)
def test_pixels_that_are_not_square(tmp_path: Path, codec: str, name: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = oddities.write_set(tmp_path / f"v.{name}", codec, pix_fmt=pix_fmt, sample_aspect_ratio=WIDE)
    assert noted(path) == {notes.NOT_SQUARE}
    square = oddities.write_set(tmp_path / f"s.{name}", codec, pix_fmt=pix_fmt, sample_aspect_ratio=Fraction(1))
    assert noted(square) == set()


def test_pixels_that_only_the_container_or_only_the_stream_calls_not_square(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", codec="h264", num_frames=12)
    data = path.read_bytes()
    for pixel, expected in (((4, 3), {notes.NOT_SQUARE}), ((0, 0), set()), ((7, 7), set())):
        path.write_bytes(boxes.with_extension(data, b"pasp", struct.pack(">II", *pixel)))
        assert noted(path) == expected
    for name, shown, expected in (
        ("w.avi", (16, 9), {notes.NOT_SQUARE}),
        ("s.avi", (4, 3), set()),
        ("r.avi", (401, 300), set()),
    ):
        avi = write_stamped_video(tmp_path / name, num_frames=12)  # 128x96
        assert noted(avi) == set()
        assert noted(with_video_properties(avi, *shown)) == expected


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mp4", "libx265"), ("v.mkv", "libx265"), ("v.ts", "libx265"), ("v.mp4", "libx264"), ("v.mp4", "libsvtav1")],
)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range(tmp_path: Path, name: str, codec: str, transfer: int) -> None:
    tags = {"color_trc": transfer, "color_primaries": BT2020, "colorspace": BT2020}
    assert noted(oddities.write_set(tmp_path / name, codec, pix_fmt="yuv420p10le", **tags)) == {notes.HDR}


def test_wide_colours_alone_are_no_high_dynamic_range(tmp_path: Path) -> None:
    tags = {"color_trc": 14, "color_primaries": BT2020, "colorspace": BT2020}
    assert noted(oddities.write_set(tmp_path / "v.mp4", pix_fmt="yuv420p10le", **tags)) == set()


def test_high_dynamic_range_that_only_the_container_states(tmp_path: Path) -> None:
    path = oddities.write_tagged(tmp_path / "v.mp4")
    assert noted(path) == set()
    path.write_bytes(boxes.with_colours(path.read_bytes(), matrix=9, full_range=False, transfer=PQ))
    assert noted(path) == {notes.HDR}


@pytest.mark.parametrize("name", ["mpeg4.avi", "mpeg4.mp4", "mpeg2video.mpg", "mpeg2video.ts", "mpeg2video.mkv"])
def test_interlaced_by_the_pictures(tmp_path: Path, name: str) -> None:
    assert noted(oddities.write_interlaced(tmp_path / name, name.split(".")[0])) == {notes.INTERLACED}


def test_interlaced_by_the_container(tmp_path: Path) -> None:
    path = oddities.write_set(tmp_path / "v.mov", "prores_ks", pix_fmt="yuv422p10le")
    assert noted(path) == set()
    data = path.read_bytes()
    for fields, expected in (
        (b"\1\0", set()),
        (b"\2\6", {notes.INTERLACED}),
    ):  # one, or two of which the bottom is first
        path.write_bytes(boxes.with_extension(data, b"fiel", fields))
        assert noted(path) == expected


def test_uneven_times(tmp_path: Path) -> None:
    even = [40 * number for number in range(12)]
    rounded = [round(number * 1000 / 60) for number in range(12)]
    for name, times, expected in (
        ("even.mkv", even, set()),
        ("rounded.mkv", rounded, set()),
        ("gap.mkv", [*even, 520], {notes.UNEVEN_TIMES}),
        ("gap.mp4", [*even, 520], {notes.UNEVEN_TIMES}),
        ("twice.mkv", sorted([*even, 100]), {notes.UNEVEN_TIMES}),
        ("one.mkv", [0, 40], set()),
    ):
        assert noted(write_with_times(tmp_path / name, times)) == expected, name
    assert noted(oddities.write_dropped_frames(tmp_path / "dropped.avi")) == {notes.UNEVEN_TIMES}
    reordered = write_stamped_video(tmp_path / "b.mp4", codec="h264", num_frames=24, b_frames=2)
    assert noted(reordered) == set()


PICTURES = [
    ("mjpeg", "image2", "yuvj420p"),
    ("png", "image2", "rgb24"),
    ("libwebp", "webp", "yuv420p"),
    ("gif", "gif", "rgb8"),
    ("bmp", "image2", "bgr24"),
    ("libsvtav1", "avif", "yuv420p"),
]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture[0])
def test_a_picture_that_is_called_like_a_video(tmp_path: Path, picture: tuple[str, str, str]) -> None:
    record = probe_video(oddities.write_picture(tmp_path / "v.mp4", *picture))
    assert (record.num_frames, record.notes) == (1, (notes.PICTURE,))


def test_a_video_of_one_frame_and_a_moving_gif_are_no_pictures(tmp_path: Path) -> None:
    assert noted(oddities.write_set(tmp_path / "v.mp4", num_frames=1)) == set()
    assert noted(oddities.write_set(tmp_path / "w.mp4", "gif", pix_fmt="rgb8", form="gif")) == set()


def test_several_streams_but_no_covers(tmp_path: Path) -> None:
    assert noted(oddities.write_set(tmp_path / "v.mp4", streams=2)) == {notes.SEVERAL_STREAMS}
    assert noted(oddities.write_set(tmp_path / "v.avi", "mpeg4", streams=2)) == {notes.SEVERAL_STREAMS}
    assert noted(write_cover_before_video(tmp_path / "c.mp4")) == set()


@pytest.mark.parametrize(
    ("write", "name", "expected"),
    [
        (lambda path: oddities.write_turned(path, degrees=90), "v.mp4", notes.ROTATED),
        (lambda path: oddities.write_turned(path, degrees=0, mirrored=True), "v.mp4", notes.ROTATED),
        (oddities.write_hidden_end, "v.mp4", notes.HIDDEN_FRAMES),
        (oddities.write_lost_packet, "v.ts", notes.DAMAGED_PACKETS),
    ],
)
def test_what_else_is_odd(tmp_path: Path, write: Callable[[Path], Path], name: str, expected: str) -> None:
    assert expected in noted(write(tmp_path / name))


def overwritten(path: Path, number: int) -> Path:
    """The video with other bytes in the middle of packet `number`."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        at = (packets[number].pos or 0) + packets[number].size // 2
    data = bytearray(path.read_bytes())
    data[at : at + 20] = b"damage" * 3 + b"!!"
    path.write_bytes(data)
    return path


def test_damage_that_the_decoder_hides_and_damage_that_it_does_not(tmp_path: Path) -> None:
    hidden = overwritten(write_stamped_video(tmp_path / "v.mkv", codec="h264", num_frames=24), 5)
    assert noted(hidden) == {notes.CONCEALED_ERRORS, notes.FROM_START}
    shown = overwritten(oddities.write_set(tmp_path / "v.avi", "png", pix_fmt="rgb24"), 5)
    with pytest.raises(VideoError, match="does not decode: after frame 5: "):
        probe_video(shown)
    record = probe_video(shown, allow_partial=True)
    assert (record.num_frames, record.notes) == (5, (notes.DAMAGED,))


def test_what_lacks_pictures(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.avi", num_frames=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert noted(path, allow_partial=True) == {notes.TRUNCATED}

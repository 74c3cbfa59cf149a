from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from numpy.typing import NDArray
from oddities import write_interlaced

from pipelines.bitstreams.mpeg4 import parse_video_object_layer
from pipelines.errors import FrameError, VideoError
from pipelines.video import packet_reader
from pipelines.video.decoder import Cut, FrameReader, ReadStatistics, _slices_for
from pipelines.video.packets import select
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord

MAKERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "mpeg4": ("a.avi", lambda p: clips.write_stamped_video(p)),
    "mpeg4 B": ("a.avi", lambda p: clips.write_stamped_video(p, b_frames=1)),
    "mpeg4 BB": ("a.avi", lambda p: clips.write_stamped_video(p, b_frames=2)),
    "mpeg4 mp4": ("a.mp4", lambda p: clips.write_stamped_video(p, b_frames=2)),
    "mpeg4 mkv": ("a.mkv", lambda p: clips.write_stamped_video(p, b_frames=1)),
    "packed": ("a.avi", lambda p: clips.write_packed_mpeg4(p)),
    "open gop h264": ("a.mp4", clips.write_open_gop_h264),
    "open gop mpeg2": ("a.avi", clips.write_open_gop_mpeg),
    "h264 avi": ("a.avi", lambda p: clips.write_stamped_video(p, codec="h264", b_frames=2)),
    "h264 mp4": ("a.mp4", lambda p: clips.write_stamped_video(p, codec="h264", b_frames=3)),
    "h264 mkv": ("a.mkv", lambda p: clips.write_stamped_video(p, codec="h264", b_frames=3)),
    "hevc 10 bit": ("a.mp4", lambda p: clips.write_stamped_video(p, codec="hevc", pix_fmt="yuv420p10le", b_frames=3)),
    "mjpeg": ("a.avi", lambda p: clips.write_stamped_video(p, codec="mjpeg")),
    "vp8": ("a.webm", lambda p: clips.write_stamped_video(p, codec="vp8")),
    "vp9": ("a.webm", lambda p: clips.write_stamped_video(p, codec="vp9")),
    "av1": ("a.mkv", lambda p: clips.write_stamped_video(p, codec="av1")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@cache
def made(folder: Path, name: str) -> tuple[VideoRecord, NDArray[np.uint8]]:
    """The record of a made video and all its frames by a full sequential decode."""
    file, make = MAKERS[name]
    path = folder / name.replace(" ", "-") / file
    path.parent.mkdir()
    make(path)
    return probe_video(path), full_decode(path)


def full_decode(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])])


def frame_sets(count: int, seed: int, sets: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    chosen = [rng.integers(0, count, k) for k in rng.integers(1, 17, sets)]
    return [np.arange(count), np.array([0]), np.array([count - 1]), np.arange(count)[::-1], *chosen]


@pytest.mark.parametrize("name", MAKERS)
def test_any_frames_are_those_of_the_full_decode_bit_for_bit(folder: Path, name: str) -> None:
    record, frames = made(folder, name)
    assert record.num_frames == len(frames)
    assert (record.height, record.width) == frames.shape[1:3]
    reader = FrameReader(recovers=False)  # so that nothing is counted from the start of the file instead
    for wanted in frame_sets(len(frames), 1, 30):
        got = reader.read(record, wanted)
        np.testing.assert_array_equal(got, frames[wanted], err_msg=f"{wanted}")
    assert [clips.read_stamp(frame) for frame in reader.read(record, [5, 3, 5, 20])] == [5, 3, 5, 20]
    (run,) = select(record.packets, [20])
    reader.statistics = ReadStatistics()
    reader.read(record, [20, 20])
    found, size = reader.statistics, record.packets.size[run.packets].sum()
    assert (found.packets, found.bytes_read, found.io_retries) == (len(run.packets), size, 0)
    assert 0 < found.convert_seconds < 5
    assert 0 <= found.read_seconds < 5
    assert 0 < found.decode_seconds < 5


@pytest.mark.real
def test_every_real_clip_is_frame_exact(real_clips: Path) -> None:
    paths = [*sorted((real_clips / "UCF-101").rglob("*.avi")), *sorted((real_clips / "odd").iterdir())]
    assert len(paths) >= 103
    reader = FrameReader()
    for seed, path in enumerate(paths):
        record, frames = probe_video(path), full_decode(path)
        assert record.num_frames == len(frames), path
        for wanted in frame_sets(len(frames), seed, 4)[1:3] + frame_sets(len(frames), seed, 4)[4:]:
            np.testing.assert_array_equal(reader.read(record, wanted), frames[wanted], err_msg=f"{path} {wanted}")


def test_a_box_is_that_part_of_the_frame(folder: Path) -> None:
    record, frames = made(folder, "mpeg4 B")
    got = FrameReader().read(record, [7, 2], box=(10, 21, 30, 41))
    np.testing.assert_array_equal(got, frames[[7, 2], 10:40, 21:62])


def test_all_cuts_of_a_frame_are_filled_from_one_pass(folder: Path) -> None:
    record, frames = made(folder, "mpeg4 BB")
    boxes = [(0, 0, 96, 128), (10, 21, 30, 41), (8, 16, 64, 64)]
    cuts = [Cut([7, 2], box, None, np.empty((2, *box[2:], 3), np.uint8)) for box in boxes]
    scaled = Cut([2, 9], boxes[2], 32, np.empty((2, 32, 32, 3), np.uint8))
    reader = FrameReader(recovers=False)
    reader.fill(record, [*cuts, scaled])
    for cut, (y, x, height, width) in zip(cuts, boxes, strict=True):
        np.testing.assert_array_equal(cut.out, frames[[7, 2], y : y + height, x : x + width])
    assert reader.statistics.packets == sum(len(run.packets) for run in select(record.packets, [2, 7, 9]))
    alone = Cut([2, 9], boxes[2], 32, np.empty((2, 32, 32, 3), np.uint8))
    FrameReader().fill(record, [alone])
    np.testing.assert_array_equal(scaled.out, alone.out)


def test_frames_of_another_size_than_the_index_says_are_an_error(folder: Path) -> None:
    record, _ = made(folder, "mpeg4")
    for other in (replace(record, width=126), replace(record, height=98)):
        says = f"frame size changes: frame 5 is 128x96, the index says {other.width}x{other.height}$"
        with pytest.raises(FrameError, match=says):
            FrameReader().read(other, [5])


def test_only_a_plain_layer_of_mpeg4_tells_how_pictures_end(folder: Path, tmp_path: Path) -> None:
    assert _slices_for(made(folder, "mpeg4")[0].extradata) != b""
    assert _slices_for(b"") == b""
    interlaced = probe_video(write_interlaced(tmp_path / "a.avi", "mpeg4"))
    assert _slices_for(interlaced.extradata) == b""
    # An estimation of complexity follows: it is not known where the quantiser of a picture is.
    fields = "0 00000001 0 0001 0 00 1 0000000000011001 1 0 1 0000010000000 1 0000001100000 1 0 1 0 0 0 0 1 0".replace(
        " ", ""
    )
    unknown = b"\0\0\1\x20" + int(fields.ljust(96, "1"), 2).to_bytes(12, "big")
    assert parse_video_object_layer(unknown) is not None
    assert _slices_for(unknown) == b""


def test_b_pictures_that_nobody_asked_for_are_left_out(folder: Path) -> None:
    record, _ = made(folder, "mpeg4 BB")
    table = record.packets
    wanted = np.arange(2, 48, 12)
    runs = select(table, wanted)
    fed = np.concatenate([run.packets for run in runs])
    asked = set(table.frame_packet[wanted].tolist())
    assert asked <= set(fed.tolist())
    assert all(table.flags[i] & 2 == 0 or i in asked for i in fed.tolist())
    assert len(fed) < len(table.offset) / 2


@pytest.mark.parametrize("frame", [-1, 48])
def test_a_frame_that_does_not_exist_is_an_error(folder: Path, frame: int) -> None:
    record, _ = made(folder, "mpeg4")
    with pytest.raises(IndexError, match=r"but the video has 48: expected numbers in display order, 0\.\.47"):
        FrameReader().read(record, [frame])


def test_a_file_that_changed_or_went_is_an_error(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record = probe_video(path)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(VideoError, match=r"changed since it was indexed: \d+ bytes then, \d+ now; index the data set"):
        FrameReader().read(record, [0])
    path.unlink()
    with pytest.raises(VideoError, match="can't be read: No such file"):
        FrameReader().read(record, [0])


def test_what_lies_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record = probe_video(path)
    for what, lay in (
        ("FIFO", lambda: os.mkfifo(path)), ("folder", path.mkdir), ("device", lambda: path.symlink_to("/dev/zero")),
    ):  # fmt: skip
        path.rename(tmp_path / f"before {what}")
        lay()
        # Whatever its size is, which for a folder depends on the file system.
        for known in (record, replace(record, size=path.stat().st_size)):
            says = rf"not a regular file \({what}\): put the video back, or index the data set again$"
            with pytest.raises(VideoError, match=says):
                FrameReader().read(known, [0])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_has_changed_though_its_time_is_the_same(tmp_path: Path, change: int) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record, data = probe_video(path), path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"x")
    os.utime(path, ns=(record.mtime_ns, record.mtime_ns))
    says = f"changed since it was indexed: {len(data)} bytes then, {len(data) + change} now; index the data set again$"
    with pytest.raises(VideoError, match=says):
        FrameReader().read(record, [0])


@pytest.mark.parametrize("later_ns", [-1, 1])
def test_of_a_file_with_another_time_the_bytes_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later_ns: int
) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record, data = probe_video(path), path.read_bytes()
    expected = FrameReader().read(record, [3])
    os.utime(path, ns=(0, record.mtime_ns + later_ns))
    np.testing.assert_array_equal(FrameReader().read(record, [3]), expected)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(0, record.mtime_ns + 2 * later_ns))
    says = "changed since it was indexed: the same size, but other bytes; index the data set again$"
    with pytest.raises(VideoError, match=says):
        FrameReader().read(record, [3])
    # With the size and the time that the index has, the bytes are not read: that would take as long as the reading.
    monkeypatch.setattr(packet_reader, "checksum_of", lambda *_: pytest.fail("read as a whole"))
    os.utime(path, ns=(0, record.mtime_ns))
    np.testing.assert_array_equal(FrameReader().read(record, [3]), expected)


def test_more_frames_than_fit_into_memory_are_an_error_that_may_pass(folder: Path) -> None:
    record, _ = made(folder, "mpeg4")
    with pytest.raises(VideoError, match="needs more memory than there is: ") as caught:
        FrameReader().read(record, [0], box=(0, 0, 2**30, 2**30))
    assert caught.value.is_passing


def test_damage_after_indexing_is_an_error_and_never_a_shorter_clip(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.avi")
    record = probe_video(path)
    content = bytearray(path.read_bytes())
    for at, size in zip(record.packets.offset.tolist(), record.packets.size.tolist(), strict=True):
        content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    os.utime(path, ns=(record.mtime_ns, record.mtime_ns))
    with pytest.raises(FrameError):
        FrameReader().read(record, [0, 30])


def test_text_in_a_container_that_is_no_text_is_not_read(tmp_path: Path) -> None:
    """Bytes rot in a tag of a Matroska file: the frames are as good as before."""
    path = clips.write_stamped_video(tmp_path / "a.mkv", codec="vp9")
    record = probe_video(path)
    expected = FrameReader().read(record, [3, 30])
    status, data = path.stat(), path.read_bytes()
    assert data.count(b"ENCODERD\x87") == 1  # a tag, its length and its text follow
    at = data.index(b"ENCODERD\x87") + 11
    path.write_bytes(data[:at] + b"\xcf\xff" + data[at + 2 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert np.array_equal(FrameReader().read(record, [3, 30]), expected)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_frames_that_need_damaged_packets_are_those_of_a_full_decode(tmp_path: Path, suffix: str) -> None:
    """The decoder hides damage with earlier frames: a decoder that begins later would hide it with others."""
    path = clips.write_stamped_video(tmp_path / f"v{suffix}", num_frames=48)
    record = probe_video(path)
    table = record.packets
    data = bytearray(path.read_bytes())
    middle = int(table.offset[12] + table.size[12] // 2)  # of a key frame
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    record = probe_video(path, allow_partial=True)
    with av.open(str(path)) as container:
        truth = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert record.num_frames == len(truth) == 48
    for number in range(48):
        np.testing.assert_array_equal(FrameReader().read(record, [number])[0], truth[number])


def test_a_part_from_the_start_of_a_damaged_file_has_its_frames(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=48)
    table = probe_video(path).packets
    data = bytearray(path.read_bytes())
    middle = int(table.offset[12] + table.size[12] // 2)
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        truth = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    record = probe_video(path, span=(0.2, 0.7))  # from frame 5 on, of the first group and the damaged one
    assert (record.num_frames, record.packets.skip, record.packets.left_out) == (13, 5, 0)
    for number in range(13):
        np.testing.assert_array_equal(FrameReader().read(record, [number])[0], truth[number + 5])


def test_a_second_avi_behind_the_first_is_played_too(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=20)
    path.write_bytes(path.read_bytes() * 2)
    record = probe_video(path)
    with av.open(str(path)) as container:
        truth = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert record.num_frames == len(truth) == 40
    np.testing.assert_array_equal(FrameReader().read(record, range(40)), truth)

"""A part of a file: its frames are those of a full decode, bit for bit, and its table holds only what they need."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import (
    has_encoder,
    read_stamp,
    write_open_gop_h264,
    write_open_gop_mpeg,
    write_packed_mpeg4,
    write_stamped_video,
)

from pipelines.errors import FrameError, VideoError
from pipelines.video.decoder import read_frames
from pipelines.video.packets import PacketTable, select
from pipelines.video.probe import probe_video
from pipelines.video.proof import decode_fully
from pipelines.video.record import VideoRecord
from pipelines.video.remuxer import INEXACT, remux

FPS = 25
WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "h264 mp4": ("v.mp4", lambda path: write_stamped_video(path, num_frames=60, codec="h264", b_frames=3)),
    "h264 open": ("v.mp4", write_open_gop_h264),
    "h264 mkv": ("v.mkv", lambda path: write_stamped_video(path, num_frames=60, codec="h264", b_frames=3)),
    "hevc": ("v.mp4", lambda path: write_stamped_video(path, num_frames=60, codec="hevc", b_frames=2)),
    "mpeg4 avi": ("v.avi", lambda path: write_stamped_video(path, num_frames=60, b_frames=2)),
    "mpeg4 mp4": ("v.mp4", lambda path: write_stamped_video(path, num_frames=60, codec="mpeg4", b_frames=2)),
    "mpeg2 open": ("v.avi", lambda path: write_open_gop_mpeg(path, num_frames=60)),
    "packed": ("v.avi", lambda path: write_packed_mpeg4(path, num_frames=60, b_frames=2)),
    "vp8": ("v.webm", lambda path: write_stamped_video(path, num_frames=60, codec="vp8")),
    "vp9": ("v.webm", lambda path: write_stamped_video(path, num_frames=60, codec="vp9")),
    "av1": ("v.mp4", lambda path: write_stamped_video(path, num_frames=60, codec="av1")),
    "mjpeg": ("v.avi", lambda path: write_stamped_video(path, num_frames=60, codec="mjpeg")),
}


@pytest.fixture(scope="module", params=WRITERS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec = request.param.split()[0]
    if codec == "av1" and not has_encoder("av1"):
        pytest.skip("this PyAV can't write AV1")
    name, write = WRITERS[request.param]
    return write(tmp_path_factory.mktemp("parts") / name)


def decoded(path: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_every_part_gives_the_frames_of_a_full_decode(video: Path) -> None:
    everything = decoded(video)
    assert len(everything) - 30 > FPS, "else a part is taken for a file that was cut already"
    for begin, end in ((0, 7), (10, 30), (13, 14), (11, 25), (23, 26), (45, len(everything))):
        record = probe_video(video, span=(begin / FPS, end / FPS))
        assert record.num_frames == end - begin
        assert record.span == (begin / FPS, end / FPS)
        frames = read_frames(record, range(record.num_frames))
        assert all(np.array_equal(a, b) for a, b in zip(frames, everything[begin:end], strict=True)), (begin, end)
        for k in (0, record.num_frames // 2, record.num_frames - 1):
            assert np.array_equal(read_frames(record, [k])[0], everything[begin + k]), (begin, end, k)
        with pytest.raises(IndexError, match="are asked for, but the video has"):
            read_frames(record, [record.num_frames])


def test_a_part_remuxed_gives_the_same_frames(video: Path) -> None:
    record = probe_video(video, span=(11 / FPS, 30 / FPS))
    wanted = [0, 5, record.num_frames - 1]
    if _is_inexact(probe_video(video), [11 + number for number in wanted]):
        assert _is_inexact(record, wanted)
        return
    mini = remux(record, wanted)
    path = video.parent / "mini.mkv"
    path.write_bytes(mini.data.tobytes())
    shown = decoded(path)
    assert [read_stamp(shown[number]) for number in mini.frames.tolist()] == [11, 16, 11 + record.num_frames - 1]


def _is_inexact(record: VideoRecord, frames: list[int]) -> bool:
    try:
        remux(record, frames)
    except FrameError as error:
        return error.reason == INEXACT
    return False


def test_a_part_keeps_only_the_packets_it_needs(video: Path) -> None:
    whole, record = probe_video(video), probe_video(video, span=(36 / FPS, 48 / FPS))
    table = PacketTable.from_bytes(record.packets.to_bytes())
    assert (table.left_out, table.skip, table.num_frames) == (record.packets.left_out, record.packets.skip, 12)
    if table.ordinal:
        return
    full = select(whole.packets, range(36, 48))
    needed = [int(run.packets[0]) for run in full], [int(run.packets[-1]) for run in full]
    assert table.left_out == min(needed[0])
    assert len(table.offset) == max(needed[1]) - min(needed[0]) + 1
    if len(np.flatnonzero(whole.packets.flags & 1)) > 3:
        assert len(table.to_bytes()) < len(whole.table) * 0.7


def test_a_part_of_a_part(tmp_path: Path) -> None:
    path = write_open_gop_h264(tmp_path / "v.mp4")
    record = probe_video(path)
    part = record.packets.part(20, 60).part(5, 30)
    once = record.packets.part(25, 50)
    assert part.num_frames == once.num_frames == 25
    for table in (part, once):
        one = VideoRecord(**{**_fields(record), "num_frames": 25, "table": table.to_bytes()})
        assert [read_stamp(frame) for frame in read_frames(one, range(25))] == list(range(25, 50))
    with pytest.raises(IndexError, match=r"frames 5\.\.25 are asked for, but the video has 25"):
        once.part(5, 26)


def test_a_part_of_a_stream_whose_frames_are_counted(tmp_path: Path) -> None:
    record = probe_video(write_stamped_video(tmp_path / "v.avi", num_frames=30))
    counted = replace(record.packets, ordinal=True)
    table = PacketTable.from_bytes(counted.part(10, 20).part(2, 8).to_bytes())
    part = VideoRecord(**{**_fields(record), "num_frames": table.num_frames, "table": table.to_bytes()})
    assert [read_stamp(frame) for frame in read_frames(part, [5, 0, 0, 3])] == [17, 12, 12, 15]
    with pytest.raises(IndexError, match="are asked for, but the video has 6"):
        read_frames(part, [6])


def test_damage_in_a_part_is_an_error_not_other_pixels(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", num_frames=60, codec="h264", gop=12)
    record = probe_video(path, span=(24 / FPS, 36 / FPS))
    at = int(record.packets.offset[4]) + 40
    data = bytearray(path.read_bytes())
    data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    os.utime(path, ns=(record.mtime_ns, record.mtime_ns))
    shown = decoded(path)[24:36]
    failed = []
    for k in range(12):
        try:
            assert np.array_equal(read_frames(record, [k])[0], shown[k])
        except FrameError:
            failed.append(k)
    assert failed
    assert failed[0] >= 4, "what comes before the damage is read"


def _fields(record: VideoRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_times_are_those_of_the_stamps(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_stamped_video(tmp_path / "even.mp4", num_frames=50, codec="h264", fps=10)
    # The same pictures, the first 20 shown for 0.1 s and the others for 0.2 s, the whole a second later.
    with av.open(tmp_path / "even.mp4") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                number = round(float(packet.pts * packet.time_base) * 10)
                tick = number if number <= 20 else 2 * number - 20
                packet.pts = packet.dts = round((tick / 10 + 1) / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    record = probe_video(path, span=(1.0, 3.0))
    frames = read_frames(record, range(record.num_frames))
    assert [read_stamp(frame) for frame in frames] == [*range(10, 20), *range(20, 25)]


def test_a_range_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.avi", num_frames=100, fps=10)
    with pytest.raises(VideoError, match=r"no frame in its range: 10 to 12 s of 10\.0 s") as caught:
        probe_video(path, span=(10.0, 12.0))
    assert caught.value.reason == "no frame in its range"
    record = probe_video(path, span=(8.0, 12.0))
    assert (record.num_frames, record.note) == (20, "ends before its range")
    whole = probe_video(path, span=(30.0, 40.0))
    assert whole.num_frames == 100, "a file as long as its range was cut already"


@pytest.mark.real
@pytest.mark.parametrize("pattern", ["UCF-101/*/*g01_c01.avi", "odd/*"])
def test_parts_of_real_files(real_clips: Path, pattern: str) -> None:
    seen = 0
    for path in sorted(real_clips.glob(pattern))[:12]:
        try:
            whole = probe_video(path)
        except VideoError:
            continue
        if whole.num_frames < 60 or whole.fps <= 0:
            continue
        everything = decoded(path)
        table = whole.packets.part(17, 41)
        record = VideoRecord(**{**_fields(whole), "num_frames": 24, "table": table.to_bytes()})
        frames = read_frames(record, range(24))
        assert all(np.array_equal(a, b) for a, b in zip(frames, everything[17:41], strict=True)), path
        seen += 1
    assert seen


def test_each_part_of_a_damaged_file_counts_its_own_damaged_frames(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mkv", num_frames=100, codec="h264")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"damage" * 3 + b"!!"
    path.write_bytes(data)
    corrupt = decode_fully(str(path)).corrupt
    parts = [probe_video(path, span=(begin, begin + 1.0)) for begin in (0.0, 1.0, 2.0, 3.0)]
    assert corrupt
    assert [part.corrupt for part in parts] == [
        sum(25 * second <= number < 25 * (second + 1) for number in corrupt) for second in range(4)
    ]

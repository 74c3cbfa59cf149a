from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import write_stamped_video

from pipelines.errors import VideoError
from pipelines.index import probe_pool
from pipelines.index.probe_pool import probe_all
from pipelines.video import probe
from pipelines.video.record import VideoRecord

MOST_MIB = 200  # of memory that indexing a file of any size takes


def write_huge_avi(path: Path, *, chunk_bytes: int, num_frames: int) -> Path:
    """An AVI whose chunks are filled up with zeros, which take no disk: `num_frames` times `chunk_bytes` bytes."""
    data = write_stamped_video(path, num_frames=num_frames).read_bytes()
    movi = data.index(b"movi")
    index = data.index(b"idx1")
    with path.open("wb") as file:
        file.write(data[: movi + 4])
        at, entries = movi + 4, b""
        while at < index:
            name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            entries += name + struct.pack("<III", 16 * (not entries), file.tell() - movi, chunk_bytes)
            file.write(name + chunk_bytes.to_bytes(4, "little") + data[at + 8 : at + 8 + size])
            file.seek(chunk_bytes - size, 1)
            at += 8 + size + size % 2
        end = file.tell()
        file.write(b"idx1" + len(entries).to_bytes(4, "little") + entries)
        size = file.tell()
        for place, value in ((4, size - 8), (movi - 4, end - movi)):
            file.seek(place)
            file.write(value.to_bytes(4, "little"))
    return path


def write_long_video(path: Path, *, groups: int) -> Path:
    """An H.264 in Matroska, which must be decoded: the same 12 frames again and again."""
    source = write_stamped_video(path.with_suffix(".mp4"), num_frames=12, codec="h264")
    with av.open(str(source)) as one:
        packets = [(bytes(packet), packet.is_keyframe) for packet in one.demux(video=0) if packet.size]
        with av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(one.streams.video[0])
            for number in range(groups * len(packets)):
                data, is_key = packets[number % len(packets)]
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), is_key
                packet.pts = packet.dts = number
                target.mux(packet)
    return path


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write_huge_avi(tmp_path / "v.avi", chunk_bytes=8_800_000, num_frames=300)
    assert path.stat().st_size > 2_600_000_000
    code = (
        "import sys; from pathlib import Path; from pipelines.video.probe import probe_video\n"
        "record = probe_video(sys.argv[1])\n"
        "peak = next(x.split()[1] for x in Path('/proc/self/status').read_text().splitlines() if x[:6] == 'VmHWM:')\n"
        "print(record.num_frames, record.packets.addressable, peak)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    frames, addressable, peak_kib = done.stdout.split()
    assert (frames, addressable) == ("300", "True")
    assert int(peak_kib) < MOST_MIB * 1024


@pytest.mark.parametrize("workers", [1, 2])
def test_one_hears_how_far_a_long_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(probe, "_WATCH_SECONDS", 0.0)  # in this process only: in others files must take half a second
    monkeypatch.setattr(probe_pool, "_LARGE", 0)
    for name in ("a.mkv", "b.mkv"):
        write_long_video(tmp_path / name, groups=2 if workers == 1 else 800)
    told: list[tuple[str, float]] = []
    results = list(probe_all(["a.mkv", "b.mkv"], tmp_path, workers=workers, watch=lambda *now: told.append(now)))
    assert [isinstance(result, VideoRecord) for result in results] == [True, True]
    assert {name for name, _ in told} == {"a.mkv", "b.mkv"}
    for name in ("a.mkv", "b.mkv"):
        shares = [share for path, share in told if path == name]
        assert shares == sorted(shares)
        assert all(0 <= share <= 1 for share in shares)


def test_few_large_files_are_probed_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pool, "_LARGE", 1000)
    for number in range(3):
        write_stamped_video(tmp_path / f"{number}.avi", num_frames=10 + number)
    (tmp_path / "bad.avi").write_bytes(b"no video")
    here: list[object] = []
    monkeypatch.setattr(probe_pool, "_set_told", here.append)  # would be called here if there were no processes
    results = list(probe_all(["0.avi", "bad.avi", "2.avi", "gone.avi"], tmp_path, workers=2))
    assert [getattr(result, "num_frames", None) for result in results] == [10, None, 12, None]
    assert [type(result) for result in results[1::2]] == [VideoError, VideoError]

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import write_stamped_video

from pipelines.errors import EnvironmentProblem, VideoError
from pipelines.index import probe_pool
from pipelines.index.probe_pool import probe_all
from pipelines.index.probe_worker import Probe, ProbeJob
from pipelines.isolation.jobs import do_apart
from pipelines.video import probe
from pipelines.video.record import VideoRecord

REPO = Path(__file__).resolve().parents[3]
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


def test_few_small_files_take_one_process_and_fewer_files_than_processes_several_threads_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []

    def noted(work: Probe, jobs: Sequence[ProbeJob], **options: Any) -> Iterator[Any]:
        taken.append((work.threads, options["workers"]))
        return do_apart(work, jobs, **options)

    monkeypatch.setattr(probe_pool, "do_apart", noted)
    names = [write_stamped_video(tmp_path / f"{k}.avi", num_frames=4).name for k in range(2)]
    for few in (64, 1):  # files below which one process is enough
        monkeypatch.setattr(probe_pool, "_FEW", few)
        for paths in (names, names[:1]):
            assert all(isinstance(found, VideoRecord) for found in probe_all(paths, tmp_path, workers=4))
    assert taken == [(2, 1), (4, 1), (2, 4), (4, 4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_hears_how_far_a_long_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(probe, "_WATCH_SECONDS", 0.0)  # in this process only: in others files must take half a second
    monkeypatch.setattr(probe_pool, "_LARGE", 0)
    for name in ("a.mkv", "b.mkv"):
        write_long_video(tmp_path / name, groups=2 if workers == 0 else 800)
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
    monkeypatch.setattr(probe, "probe_video", None)  # would be called here if there were no processes
    results = list(probe_all(["0.avi", "bad.avi", "2.avi", "gone.avi"], tmp_path, workers=2))
    assert [getattr(result, "num_frames", None) for result in results] == [10, None, 12, None]
    assert [type(result) for result in results[1::2]] == [VideoError, VideoError]


def some_videos(folder: Path, count: int) -> list[str]:
    """The names of `count` new videos in `folder`, of 2, 3, ... frames."""
    names = [f"{number}.avi" for number in range(count)]
    for number, name in enumerate(names):
        write_stamped_video(folder / name, num_frames=2 + number % 5)
    return names


def in_processes(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, *, name: str) -> None:
    """Have the processes that probe do `what`, which is Python, with the file `name`."""
    # They import from where this one does: this module stands before the real function.
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "import pipelines.video.probe as probe\n"
        "real = probe.probe_video\n"
        "def stands_before(path, **options):\n"
        f"    if path == {name!r}:\n"
        f"        {what}\n"
        "    return real(path, **options)\n"
        "probe.probe_video = stands_before\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPO}")


def test_a_file_with_which_a_process_dies_is_the_only_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = some_videos(tmp_path, 70)
    in_processes(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGSEGV)", name="40.avi")
    results = list(probe_all(names, tmp_path, workers=2))
    bad = [number for number, result in enumerate(results) if isinstance(result, VideoError)]
    assert bad == [40]
    assert str(results[40]).endswith("crashes the decoder: the process that read it was ended by SIGSEGV, twice")
    assert isinstance(results[40], VideoError)
    assert results[40].is_passing
    assert [r.num_frames for r in results if isinstance(r, VideoRecord)] == [2 + k % 5 for k in range(70) if k != 40]


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_a_single_file_that_crashes_is_an_item_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    some_videos(tmp_path, 1)
    in_processes(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGBUS)", name="0.avi")
    (result,) = probe_all(["0.avi"], tmp_path, workers=workers)
    expected = f"{tmp_path}/0.avi: crashes the decoder: the process that read it was ended by SIGBUS, twice"
    assert str(result) == expected


def test_a_file_that_blocks_its_process_is_the_only_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = some_videos(tmp_path, 4)
    in_processes(tmp_path, monkeypatch, "time.sleep(3600)", name="1.avi")
    results = list(probe_all(names, tmp_path, workers=1, stall_seconds=1.0))
    assert isinstance(results[1], VideoError)
    assert results[1].is_passing
    assert results[1].reason == "hangs the decoder"
    assert results[1].detail == "nothing was read or decoded for 1 s, and its process was ended"
    assert [r.num_frames for r in results if isinstance(r, VideoRecord)] == [2, 4, 5]


def test_what_keeps_processes_from_starting_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = some_videos(tmp_path, 70)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentProblem, match="ended with exit code 1 while it started, 4 times"):
        list(probe_all(names, tmp_path, workers=2))


def test_the_processes_end_with_the_iterator(tmp_path: Path) -> None:
    names = some_videos(tmp_path, 70)
    before = children()
    results = probe_all(names, tmp_path, workers=2)
    next(results)
    assert children() - before
    results.close()  # type: ignore[attr-defined]
    assert children() == before


def children() -> set[int]:
    """The ids of the processes that this one has started and that are still there."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_script_without_a_main_guard_builds_an_index(tmp_path: Path) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    some_videos(tmp_path / "data" / "x", 70)
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom pipelines import VideoIndex\n"
        "index = VideoIndex.build('data', workers=2)\nprint(len(index), os.getpid() > 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == ("", "70 True\n")

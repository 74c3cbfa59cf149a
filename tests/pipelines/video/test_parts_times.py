"""The times by which parts are cut out are those that FrameSequence gives, and those that the file states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from timed_video import write_with_times

from pipelines.errors import VideoError
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video
from pipelines.video.sequence import FrameSequence

FRAME = Fraction(1, 25)
EVEN = list(range(0, 2000, 40))
LATE = [time + 2000 for time in EVEN]
STILL = [*range(0, 840, 40), *range(15_840, 16_920, 40)]  # 21 frames, 15 s of a still, 27 frames
# Every other frame, none, two of three, none are dropped. The last frames come out of the decoder without a stamp.
DROPPED = [*range(0, 1000, 80), *range(1000, 2000, 40), *range(2000, 4000, 120), *range(4000, 4200, 40)]
UNEVEN = [0, 40, 90, 500, 2000, 2040, 2050, 2051, 2100]
WRAP = {"output_ts_offset": "95442"}  # s: the 33 bits of the counter are full after 95443.7 s
Write = Callable[[Path], Path]


def timed(times: Sequence[int], codec: str, b_frames: int = 0, **options: object) -> tuple[Sequence[int], Write]:
    return times, lambda path: write_with_times(path, times, codec=codec, b_frames=b_frames, **options)  # type: ignore[arg-type]


def joined(name: str, times: Sequence[int], **options: object) -> tuple[Sequence[int], Write]:
    """A stream of two recordings whose clocks both begin at the same time."""

    def write(path: Path) -> Path:
        content = write_with_times(path.parent / name, times, **options).read_bytes()  # type: ignore[arg-type]
        path.write_bytes(content + content)
        return path

    return [*times, *(time + times[-1] + 40 for time in times)], write


# Name of the file, and when its frames have to be shown, in ms from the start of the file.
FILES: dict[str, tuple[str, tuple[Sequence[int], Write]]] = {
    "mp4": ("v.mp4", timed(STILL, "libx264", 2)),
    "mov": ("v.mov", timed(STILL, "mpeg4", 2)),
    "mp4 in fragments": ("v.mp4", timed(STILL, "libx264", 2, options={"movflags": "frag_keyframe+empty_moov"})),
    "mp4 of uneven times": ("v.mp4", timed(UNEVEN, "libx264", 2)),
    "mkv": ("v.mkv", timed(STILL, "libx264", 2)),
    "mkv of uneven times": ("v.mkv", timed(UNEVEN, "mjpeg")),
    "webm": ("v.webm", timed(STILL, "libvpx-vp9")),
    "flv": ("v.flv", timed(STILL, "libx264", 2)),
    "wmv": ("v.wmv", timed(STILL, "wmv2")),
    "ts": ("v.ts", timed(STILL, "libx264", 2)),
    "ts whose counter wraps": ("v.ts", timed(EVEN, "libx264", 2, options=WRAP)),
    "ts that starts late": ("v.ts", timed(EVEN, "libx264", 2, options={"output_ts_offset": "1000"})),
    # No still: its next frame may begin in a packet that has the stamp of another one.
    "mpg": ("v.mpg", timed(EVEN, "mpeg1video", 2, tick=FRAME)),
    "mpg of two recordings": ("v.mpg", joined("one.mpg", EVEN, codec="mpeg1video", b_frames=2, tick=FRAME)),
    "avi": ("v.avi", timed(EVEN, "mpeg4", tick=FRAME)),
    "avi with a still": ("v.avi", timed(STILL, "mpeg4", tick=FRAME)),
    "avi with dropped frames": ("v.avi", timed(DROPPED, "mpeg4", tick=FRAME)),
    "avi with half the frames": ("v.avi", timed(range(0, 4000, 80), "mpeg4", tick=FRAME)),
    "avi with b-frames": ("v.avi", timed(STILL, "mpeg4", 2, tick=FRAME)),
    "avi with b-frames and dropped frames": ("v.avi", timed(DROPPED, "mpeg4", 2, tick=FRAME)),
    "avi of mpeg-2": ("v.avi", timed(STILL, "mpeg2video", 2, tick=FRAME)),
    "avi of h.264": ("v.avi", timed(DROPPED, "libx264", 3, tick=FRAME)),
    "avi of pictures": ("v.avi", timed(DROPPED, "mjpeg", tick=FRAME)),
    "avi of a lossless codec": ("v.avi", timed(STILL, "ffv1", tick=FRAME)),
    "avi that packs two pictures": ("v.avi", (EVEN, lambda path: clips.write_packed_mpeg4(path, num_frames=50))),
    "a start after two seconds": ("v.mp4", (EVEN, timed(LATE, "libx264", 2)[1])),
    "sound before the picture": ("v.mkv", timed(LATE, "libx264", 2, sound_at=0)),
    "a stream without time stamps": (
        "v.h264", (EVEN, lambda path: clips.write_stamped_video(path, codec="h264", container="h264", num_frames=50)),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A video, and the seconds at which its frames are shown."""
    name, (times, write) = FILES[request.param]
    return write(tmp_path_factory.mktemp("timed") / name), [time / 1000 for time in times]


def sequence(path: Path) -> tuple[list[float], list[int]]:
    """The times of the frames and the numbers that they show."""
    with FrameSequence(path) as video:
        frames = [(shown.seconds, clips.read_stamp(video.pixels(shown.frame))) for shown in video]
    return [time for time, _ in frames], [stamp for _, stamp in frames]


def test_times_are_those_of_the_file(file: tuple[Path, list[float]]) -> None:
    path, wanted = file
    found, _ = sequence(path)
    np.testing.assert_allclose(found, wanted, atol=1e-3 if path.suffix in (".mkv", ".flv") else 1e-6)
    if path.suffix == ".avi":
        return  # FFmpeg guesses there: it takes the order of H.264 frames for that of their packets
    with av.open(str(path)) as container:
        stated = [frame.time for frame in container.decode(container.streams.video[0])]
    if None not in stated and np.all(np.diff(stated) > 0):
        np.testing.assert_allclose(np.diff(found), np.diff(stated), atol=1e-9)


def test_parts_are_cut_by_the_same_times(file: tuple[Path, list[float]]) -> None:
    path, _ = file
    times, stamps = sequence(path)
    last = len(times) - 1
    for first, end in ((0, 3), (1, last), (last // 2, last // 2 + 2), (last - 2, last)):
        if times[first] == times[end] or times[end] - times[first] + 1.1 > times[-1] - times[0]:
            continue
        record = probe_video(path, span=(times[first], times[end]))
        assert record.num_frames == end - first
        assert [clips.read_stamp(frame) for frame in read_frames(record, range(end - first))] == stamps[first:end]


def test_a_part_within_a_still_is_the_frame_that_stands(tmp_path: Path) -> None:
    for name, codec in (("v.mp4", "libx264"), ("v.avi", "mpeg4")):
        path = write_with_times(tmp_path / name, STILL, codec=codec, tick=FRAME)
        record = probe_video(path, span=(5.0, 9.0))
        assert [clips.read_stamp(frame) for frame in read_frames(record, [0])] == [20]
        assert (record.num_frames, record.note) == (1, "uneven frame times")
        with pytest.raises(VideoError, match=r"no frame in its range: 17 to 19 s of 16\.9 s"):
            probe_video(path, span=(17.0, 19.0))


def test_a_part_at_the_end_of_a_last_frame_that_stands(tmp_path: Path) -> None:
    path = write_with_times(tmp_path / "v.mp4", [*EVEN, 20_000, 20_040], codec="libx264")
    with FrameSequence(path) as video:
        assert [shown.seconds for shown in video][-3:] == [1.96, 20.0, 20.04]
    record = probe_video(path, span=(15.0, 20.02))
    assert [clips.read_stamp(frame) for frame in read_frames(record, [0])] == [50]

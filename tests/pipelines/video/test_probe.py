from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from oddities import write_dropped_frames, write_lost_packet
from timed_video import write_with_times

from pipelines.bitstreams.packet_flags import DROPPABLE, KEY, START
from pipelines.errors import VideoError
from pipelines.video import probe
from pipelines.video.decoder import FrameReader
from pipelines.video.probe import probe_video
from pipelines.video.sequence import FrameSequence


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """A FIFO that is opened blocks for ever: end the test instead."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def refusal(path: Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        probe_video(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3
    return caught.value


def decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(container.streams.video[0]))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return clips.write_stamped_video(tmp_path / "a.avi", num_frames=30)


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.avi").touch()
    assert refusal(tmp_path / "a.avi").reason == "empty"


@pytest.mark.parametrize("content", [b"hello world\n" * 50, np.random.default_rng(0).bytes(5000)])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.avi").write_bytes(content)
    assert refusal(tmp_path / "a.avi").reason == "not a readable video"


def test_only_the_first_100_bytes(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:100])
    assert refusal(video).reason == "truncated"


def test_audio_only(tmp_path: Path) -> None:
    clips.write_audio_only(tmp_path / "a.avi")
    assert refusal(tmp_path / "a.avi").reason == "no video stream"


def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.avi")
    assert refusal(tmp_path / "a.avi").reason == "not a regular file (FIFO)"


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.avi").mkdir()
    assert refusal(tmp_path / "a.avi").reason == "not a regular file (folder)"


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_and_what_is_left_of_it(video: Path, share: float) -> None:
    content = video.read_bytes()
    whole = FrameReader().read(probe_video(video), range(30))
    video.write_bytes(content[: int(len(content) * share)])
    assert refusal(video).reason == "truncated"
    record = probe_video(video, allow_partial=True)
    assert 5 < record.num_frames < 30
    assert "truncated" in record.note
    got = FrameReader().read(record, range(record.num_frames))
    np.testing.assert_array_equal(got, whole[: record.num_frames])


def patched_size(content: bytes, width: int, height: int) -> bytes:
    """The AVI with other dimensions in its main header and its stream format."""
    data = bytearray(content)
    main = data.index(b"avih") + 8
    data[main + 32 : main + 40] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    form = data.index(b"strf") + 8
    data[form + 4 : form + 12] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("side", [0, 60000])
def test_the_size_is_that_of_the_frames_not_of_the_header(video: Path, side: int) -> None:
    video.write_bytes(patched_size(video.read_bytes(), side, side))
    record = probe_video(video)
    assert (record.width, record.height, record.num_frames) == (128, 96, 30)
    assert FrameReader().read(record, [4]).shape == (1, 96, 128, 3)


def test_frames_are_counted_not_believed(video: Path) -> None:
    data = bytearray(video.read_bytes())
    main = data.index(b"avih") + 8
    data[main + 16 : main + 20] = (300).to_bytes(4, "little")
    stream = data.index(b"strh") + 8
    data[stream + 32 : stream + 36] = (300).to_bytes(4, "little")
    video.write_bytes(data)
    assert probe_video(video).num_frames == 30


def test_a_missing_index_chunk_changes_nothing(video: Path) -> None:
    before = FrameReader().read(probe_video(video), [3, 17])
    assert probe_video(video).corrupt == -1  # it was not decoded
    data = bytearray(video.read_bytes())
    at = data.rindex(b"idx1")
    data[at : at + 4] = b"JUNK"
    video.write_bytes(data)
    record = probe_video(video)
    assert (record.num_frames, record.corrupt) == (30, 0)
    assert np.flatnonzero(record.packets.flags & START).tolist() == [0, 12, 24]
    np.testing.assert_array_equal(FrameReader().read(record, [3, 17]), before)


def one_grey_frame(path: Path, codec: str, size: tuple[int, int]) -> Path:
    """A video of one frame of `size`, (width, height)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(*size, stream.pix_fmt)), *stream.encode(None)]:
            container.mux(packet)
    return path


def test_too_large_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for codec, name, size in (("mpeg4", "a.avi", (8000, 4500)), ("mjpeg", "b.mp4", (8200, 4400))):
        path, pixels = one_grey_frame(tmp_path / name, codec, size), size[0] * size[1]
        error, said = refusal(path), f"{size[0]}x{size[1]} px, the limit is 35651584 px a frame"
        assert (error.reason, error.detail) == ("too large", f"{said}; --max-pixels {pixels} allows it")
        record = probe_video(path, max_pixels=pixels)
        assert (record.width, record.height) == size
        assert FrameReader().read(record, [0], box=(8, 8, 16, 16)).shape == (1, 16, 16, 3)


def test_8k_is_taken(tmp_path: Path) -> None:
    record = probe_video(one_grey_frame(tmp_path / "a.avi", "mpeg4", (7680, 4320)))
    assert (record.width, record.height, record.num_frames) == (7680, 4320, 1)


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    assert probe_video(clips.write_stamped_video(tmp_path / "a.avi", num_frames=1)).num_frames == 1
    odd = probe_video(clips.write_stamped_video(tmp_path / "b.avi", size=(146, 98), num_frames=5))
    assert (odd.width, odd.height, odd.num_frames) == (146, 98, 5)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "a.mp4", codec="h264", num_frames=20)
    hidden = path.rename(tmp_path / "a.avi")
    record = probe_video(hidden)
    assert (record.codec, record.num_frames) == ("h264", 20)
    assert "content under an .avi name" in record.note


@pytest.mark.parametrize("name", ["with space.avi", "ünï-日本.avi", "#x.avi", "{a}.avi", "-o.avi", "new\nline.avi"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    clips.write_stamped_video(tmp_path / "a.avi", num_frames=4).rename(tmp_path / name)
    record = probe_video(name, root=tmp_path)
    assert FrameReader().read(record, [3], root=str(tmp_path)).shape == (1, 96, 128, 3)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("Lunges/v_Lunges_g06_c01.avi", 1),
        ("JugglingBalls/v_JugglingBalls_g18_c04.avi", 8),
        ("JumpingJack/v_JumpingJack_g20_c04.avi", 1),
    ],
)
def test_real_headers_that_claim_too_many(real_clips: Path, name: str, hidden: int) -> None:
    path = real_clips / "UCF-101" / name
    with av.open(str(path)) as container:
        claimed = container.streams.video[0].frames
    assert probe_video(path).num_frames == decoded(path) == claimed - hidden


def test_time_stamps_that_no_decoder_goes_by_do_not_order_the_frames(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.mp4", num_frames=40, codec="h264", b_frames=2)
    data = bytearray(path.read_bytes())
    at = data.index(b"ctts") + 12  # the first (frames, offset) of the table of composition times
    data[at + 12 * 8 + 4 : at + 12 * 8 + 8] = (1_000_000).to_bytes(4, "big")
    path.write_bytes(data)
    record = probe_video(path)
    with av.open(str(path)) as container:
        truth = [clips.read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [clips.read_stamp(frame) for frame in FrameReader().read(record, range(record.num_frames))] == truth


@pytest.mark.parametrize(("name", "share"), [("v.avi", 0.02), ("v.mp4", 0.99), ("v.mov", 0.995)])
def test_a_file_that_is_cut_in_its_headers_is_called_truncated(tmp_path: Path, name: str, share: float) -> None:
    path = clips.write_stamped_video(tmp_path / name, num_frames=30, codec="h264" if name != "v.avi" else "mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    error = refusal(path)
    assert error.reason == "truncated"
    assert error.detail.endswith(("no frame can be read", "none can be read"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a pointer of git-lfs; fetch"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page, as a download that failed leaves it"),
    ],
)
def test_what_often_stands_in_for_a_video_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    error = refusal(tmp_path / "v.mp4")
    assert error.reason == "not a video"
    assert error.detail.startswith(said)


def test_colours_that_pyav_can_not_convert_are_refused_by_all_readers(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"colorspace": "ycgco"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    error = refusal(path)
    assert error.reason == "colours can't be converted"
    assert "colour matrix 8" in error.detail
    with FrameSequence(path) as video, pytest.raises(VideoError, match="colours can't be converted"):
        list(video)


def test_a_video_of_far_fewer_frames_than_its_header_states_is_noted(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=30)
    assert "fewer frames than it states" not in probe_video(path).notes
    data = bytearray(path.read_bytes())
    stream = data.index(b"strh") + 8
    data[stream + 32 : stream + 36] = (60).to_bytes(4, "little")
    path.write_bytes(data)
    assert "fewer frames than it states" in probe_video(path).notes
    dropped = write_dropped_frames(tmp_path / "dropped.avi")  # whose header counts what was dropped
    assert "fewer frames than it states" not in probe_video(dropped).notes


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(tmp_path / "a.avi")
    assert (error.reason, error.detail) == ("can't be read", "No such file or directory")


def without_index(path: Path) -> Path:
    """The AVI without its index, so that its headers are not believed."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"idx1")
    data[at : at + 4] = b"JUNK"
    path.write_bytes(data)
    return path


def test_the_size_of_damaged_mpeg4_is_that_of_its_layer(video: Path) -> None:
    sound = video.read_bytes()
    video.write_bytes(patched_size(sound, 8000, 8000))
    record = probe_video(without_index(video), max_pixels=128 * 96)
    assert (record.width, record.height, record.num_frames) == (128, 96, 30)
    video.write_bytes(patched_size(sound, 16, 16))
    with pytest.raises(VideoError, match="too large: 128x96 px, the limit is 12287 px a frame") as caught:
        probe_video(without_index(video), max_pixels=128 * 96 - 1)
    assert caught.value.reason == "too large"
    # Without a picture FFmpeg knows the size of the container alone.
    video.write_bytes(patched_size(sound.replace(b"\0\0\1\xb6", b"\0\0\1\xb7"), 8000, 8000))
    assert refusal(video).reason == "no frame decodes"


@pytest.mark.parametrize(("content", "tries"), [("not a video", 2), ("too large", 1), ("gone", 1)])
def test_that_a_file_can_not_be_used_is_believed_once_it_was_seen_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, tries: int
) -> None:
    path = clips.write_stamped_video(tmp_path / "v.mkv", num_frames=5)
    if content == "not a video":
        path.write_bytes(b"no video " * 100)
    elif content == "gone":
        path = tmp_path / "other.mkv"
    asked: list[str] = []
    probed = probe._probed
    monkeypatch.setattr(probe, "_probed", lambda full, what: (asked.append(full), probed(full, what))[1])
    with pytest.raises(VideoError):
        probe_video(path, max_pixels=100)
    assert asked == [str(path)] * tries


@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("v.avi", "mpeg4", 30), ("v.mkv", "h264", 24), ("v.mp4", "h264", 2000)]
)
def test_the_frame_rate_is_that_of_the_file(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = clips.write_stamped_video(tmp_path / name, codec=codec, fps=rate, num_frames=20)
    assert probe_video(path).fps == rate


def test_the_frame_rate_of_raw_dv_is_not_its_clock(tmp_path: Path) -> None:
    path = tmp_path / "v.dv"
    with av.open(str(path), "w", format="rawvideo") as target:
        stream = target.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame(720, 576, "yuv420p")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    record = probe_video(path)
    assert (record.container, record.fps, record.num_frames) == ("dv", 25.0, 4)


def test_packets_that_may_be_lost_let_a_video_be_decoded_as_a_whole(tmp_path: Path) -> None:
    """`corrupt` is -1 where the file was not decoded to find out."""
    even = [40 * number for number in range(12)]
    uneven = [*even[:6], *(time + 200 for time in even[6:])]
    for codec in ("libvpx-vp9", "libx264"):
        for times, corrupt in ((even, -1), (uneven, 0 if codec == "libvpx-vp9" else -1)):
            path = write_with_times(tmp_path / ("v.webm" if codec == "libvpx-vp9" else "v.mp4"), times, codec=codec)
            record = probe_video(path)
            assert ("uneven frame times" in record.notes) == (times is uneven)
            assert (record.num_frames, record.corrupt, record.packets.ordinal) == (12, corrupt, False)
            assert path.suffix != ".mp4" or record.fps == pytest.approx(12 / (times[-1] + 40) * 1000)


def test_packed_pictures_are_counted_by_headers_and_by_a_decode_where_that_shows_damage(tmp_path: Path) -> None:
    clips.write_packed_mpeg4(tmp_path / "v.avi", num_frames=30, b_frames=2)
    record = probe_video(tmp_path / "v.avi")
    assert (record.num_frames, record.corrupt, record.packets.ordinal, record.note) == (30, 0, False, "")
    data = bytearray((tmp_path / "v.avi").read_bytes())
    at, size = int(record.packets.offset[15]), int(record.packets.size[15])
    data[at + size // 2 : at + size] = bytes(size - size // 2)
    (tmp_path / "v.avi").write_bytes(data)
    damaged = probe_video(tmp_path / "v.avi")
    assert damaged.corrupt > 0
    assert damaged.packets.ordinal
    assert {"concealed errors", "read from its start"} <= set(damaged.notes)
    assert damaged.num_frames == decoded(tmp_path / "v.avi")


def test_pictures_are_left_out_only_where_the_container_is_sound(tmp_path: Path) -> None:
    for name, droppable in (("v.mp4", True), ("v.mkv", False), ("v.avi", False)):
        table = probe_video(clips.write_stamped_video(tmp_path / name, codec="h264", b_frames=2)).packets
        flags = table.flags
        assert not table.ordinal
        assert bool(np.any(flags & DROPPABLE)) == droppable
        assert np.flatnonzero(flags & START).tolist() == [0, 12, 24, 36] == np.flatnonzero(flags & KEY).tolist()


def test_what_is_decoded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lost_packet(tmp_path / "v.ts")
    told: list[float] = []
    record = probe_video(path, watch=told.append)
    assert told == []  # it took less time than half a second
    monkeypatch.setattr(probe, "_WATCH_SECONDS", 0.0)
    assert probe_video(path, watch=told.append) == record
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert len(told) >= len(record.packets.offset)
    clock = iter(range(10**6))
    monkeypatch.setattr(probe, "_WATCH_SECONDS", 5)
    monkeypatch.setattr(probe, "monotonic", lambda: next(clock))
    told.clear()
    probe_video(path, watch=told.append)
    assert 0 < len(told) <= len(record.packets.offset) // 4

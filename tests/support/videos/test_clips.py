"""Every frame of a test video shows its own number, in every codec and container."""

from __future__ import annotations

from pathlib import Path

import av
import clips
import numpy as np
import pytest
from clips import write_classes
from loading import find_real_videos, index_some

FRAMES = 30
PAIRS = [
    ("mpeg4", "avi"),
    ("mpeg4", "mp4"),
    ("mpeg4", "mkv"),
    ("mpeg4", "mov"),
    ("mpeg2video", "avi"),
    ("mpeg2video", "mkv"),
    ("mjpeg", "avi"),
    ("mjpeg", "mov"),
    ("h264", "avi"),
    ("h264", "mp4"),
    ("h264", "mkv"),
    ("hevc", "mp4"),
    ("hevc", "mkv"),
    ("vp8", "webm"),
    ("vp8", "avi"),
    ("vp9", "webm"),
    ("vp9", "mp4"),
    ("av1", "mp4"),
    ("av1", "webm"),
]


def packets(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(("codec", "container"), PAIRS)
def test_stamps_survive(tmp_path: Path, codec: str, container: str) -> None:
    if not clips.has_encoder(codec):
        pytest.skip(f"this PyAV has no {codec} encoder")
    path = clips.write_stamped_video(tmp_path / f"clip.{container}", num_frames=FRAMES, codec=codec)
    assert clips.read_stamps(path) == list(range(FRAMES))
    keys = [number for number, packet in enumerate(packets(path)) if packet.is_keyframe]
    assert keys == (list(range(FRAMES)) if codec == "mjpeg" else [0, 12, 24])


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "h264", "hevc"])
def test_b_frames_are_written(tmp_path: Path, codec: str) -> None:
    if not clips.has_encoder(codec):
        pytest.skip(f"this PyAV has no {codec} encoder")
    path = clips.write_stamped_video(tmp_path / "clip.mkv", num_frames=FRAMES, codec=codec, gop=15, b_frames=2)
    shown = [packet.pts for packet in packets(path)]
    assert shown != sorted(shown)
    assert clips.read_stamps(path) == list(range(FRAMES))


def test_size_rate_format_and_container_are_as_asked(tmp_path: Path) -> None:
    path = clips.write_stamped_video(
        tmp_path / "no_suffix", num_frames=5, size=(176, 144), container="mkv", codec="h264", fps=30, pix_fmt="yuv444p"
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (176, 144, 30)
        assert stream.codec_context.pix_fmt == "yuv444p"
        assert "matroska" in container.format.name
    assert clips.read_stamps(path) == list(range(5))


def test_large_numbers_are_read() -> None:
    for number in (0, 1, 2048, 4095):
        assert clips.read_stamp(clips.stamped_frame(number)) == number
    with pytest.raises(ValueError, match="4096"):
        clips.stamped_frame(4096)


def test_wrong_frames_are_not_read() -> None:
    frame = clips.stamped_frame(5)
    mixed = frame.copy()
    half = clips.ORIGIN_PX + clips.ROWS * clips.BLOCK_PX // 2
    mixed[half:] = clips.stamped_frame(6)[half:]  # the lower copy of another frame, as a torn P-frame shows
    with pytest.raises(AssertionError, match="disagree"):
        clips.read_stamp(mixed)
    for grey in (np.zeros_like(frame), (frame.astype(np.uint16) + clips.stamped_frame(6)).astype(np.uint16) // 2):
        with pytest.raises(AssertionError):
            clips.read_stamp(grey.astype(np.uint8))


@pytest.mark.parametrize("b_frames", [1, 2])
def test_packed_mpeg4_decodes_like_the_plain_one(tmp_path: Path, b_frames: int) -> None:
    plain = clips.write_stamped_video(tmp_path / "plain.avi", num_frames=FRAMES, b_frames=b_frames)
    packed = clips.write_packed_mpeg4(tmp_path / "packed.avi", num_frames=FRAMES, b_frames=b_frames)
    assert clips.read_stamps(packed) == clips.read_stamps(plain) == list(range(FRAMES))
    data = [bytes(packet) for packet in packets(packed)]
    assert len(data) == FRAMES
    assert data[0].count(b"DivX503b1393p") == 1
    assert max(one.count(b"\0\0\1\xb6") for one in data) == 2
    assert 5 < sum(len(one) <= 7 for one in data) < FRAMES // 2


def test_packed_mpeg4_is_undone_by_ffmpegs_own_filter(tmp_path: Path) -> None:
    path = clips.write_packed_mpeg4(tmp_path / "packed.avi", num_frames=FRAMES, b_frames=2)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        unpack = av.BitStreamFilterContext("mpeg4_unpack_bframes", video)
        split = [bytes(out) for packet in container.demux(video) if packet.size for out in unpack.filter(packet)]
    assert len(split) == FRAMES
    assert all(data.count(b"\0\0\1\xb6") == 1 and len(data) > 7 for data in split)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(clips.write_open_gop_h264, id="h264"),
        pytest.param(clips.write_open_gop_mpeg, id="mpeg2video"),
        pytest.param(lambda path: clips.write_open_gop_mpeg(path, codec="mpeg4"), id="mpeg4"),
    ],
)
def test_open_gops_have_frames_shown_before_their_key_frame(tmp_path: Path, write: object) -> None:
    path = write(tmp_path / "open.mkv")  # type: ignore[operator]
    found = packets(path)
    later_keys = [number for number, packet in enumerate(found) if packet.is_keyframe and number]
    assert len(later_keys) >= 2
    assert all(found[number + 1].pts < found[number].pts for number in later_keys)
    assert clips.read_stamps(path) == list(range(len(found)))


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
def test_audio_only_has_no_video(tmp_path: Path, suffix: str) -> None:
    with av.open(str(clips.write_audio_only(tmp_path / f"tone.{suffix}"))) as container:
        assert not container.streams.video
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 20000


def test_a_folder_of_classes_is_taken_as_it_is(tmp_path: Path) -> None:
    videos = write_classes(tmp_path / "videos", 9, classes="abc", num_frames=8)
    assert find_real_videos(videos) == videos
    videos.rename(tmp_path / "UCF-101")
    assert find_real_videos(tmp_path) == tmp_path / "UCF-101"
    assert find_real_videos(tmp_path / "UCF-101" / "a") is None
    assert find_real_videos(tmp_path / "missing") is None


def test_some_are_spread_over_all(tmp_path: Path) -> None:
    videos = write_classes(tmp_path / "videos", 12, classes="abc", num_frames=8)
    index = index_some(videos, tmp_path / "some", 6)
    assert [index[k].path.split("/")[0] for k in range(len(index))] == ["a", "a", "b", "b", "c", "c"]
    assert len(index_some(videos, tmp_path / "all")) == 12

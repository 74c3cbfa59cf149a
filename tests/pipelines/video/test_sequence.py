from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import clips
import numpy as np
import pytest
from timed_video import write_with_times

from pipelines.errors import FrameError, VideoError
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video
from pipelines.video.sequence import FrameSequence


def stamps(path: Path) -> list[int]:
    with FrameSequence(path) as video:
        return [clips.read_stamp(video.pixels(shown.frame)) for shown in video]


@pytest.mark.parametrize("codec", ["mpeg4", "h264", "vp9", "mjpeg"])
def test_every_frame_comes_once_in_display_order(tmp_path: Path, codec: str) -> None:
    if not clips.has_encoder(codec):
        pytest.skip(f"this PyAV can't write {codec}")
    path = clips.write_stamped_video(tmp_path / f"v.{clips.ENCODERS[codec][1]}", codec=codec, num_frames=40)
    assert stamps(path) == list(range(40))


def test_streams_with_b_frames_too(tmp_path: Path) -> None:
    assert stamps(clips.write_stamped_video(tmp_path / "b.avi", b_frames=2)) == list(range(48))
    assert stamps(clips.write_packed_mpeg4(tmp_path / "v.avi")) == list(range(48))
    assert stamps(clips.write_open_gop_mpeg(tmp_path / "o.avi")) == list(range(48))


@pytest.mark.real
def test_frames_are_those_of_read_frames_bit_for_bit(real_clips: Path) -> None:
    videos = sorted((real_clips / "UCF-101").rglob("*.avi"))[::24] + sorted((real_clips / "odd").glob("*.avi"))[:4]
    for path in videos:
        try:
            record = probe_video(path)
        except VideoError:
            continue
        with FrameSequence(path) as video:
            frames = {shown.number: video.pixels(shown.frame).copy() for shown in video}
            assert video.num_frames == record.num_frames, path
        expected = read_frames(record, range(0, record.num_frames, 7))
        for number, pixels in zip(range(0, record.num_frames, 7), expected, strict=True):
            np.testing.assert_array_equal(frames[number], pixels, err_msg=f"{path} {number}")


def test_times_are_the_files_own(tmp_path: Path) -> None:
    times = [0, 40, 90, 500, 2000, 2040]
    with FrameSequence(write_with_times(tmp_path / "v.mkv", times)) as video:
        found = [shown.seconds for shown in video]
    np.testing.assert_allclose(found, np.array(times) / 1000, atol=2e-3)


def test_times_that_can_not_be_are_replaced(tmp_path: Path) -> None:
    with FrameSequence(write_with_times(tmp_path / "v.mkv", [0, 40, 80, 999_000_000, 999_000_040])) as video:
        found = [shown.seconds for shown in video]
        step = float(1 / video.fps)
    np.testing.assert_allclose(found, [0, 0.04, 0.08, 0.08 + step, 0.12 + step], atol=2e-3)


def test_an_avi_counts_time_by_its_rate(tmp_path: Path) -> None:
    with FrameSequence(clips.write_stamped_video(tmp_path / "v.avi", num_frames=30, fps=30)) as video:
        assert [shown.seconds for shown in video] == [k / 30 for k in range(30)]
        assert video.clock.end == pytest.approx(1.0)


def test_a_file_that_is_cut_gives_what_is_left_and_then_says_so(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=48)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    found: list[int] = []
    with pytest.raises(VideoError, match=r"truncated: \d+ frames left"), FrameSequence(path) as video:
        found.extend(shown.number for shown in video)
    assert found == list(range(len(found)))
    assert 20 < len(found) < 48


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.flv", "v.avi"])
def test_it_gives_the_frames_of_a_cut_file_that_an_index_takes(tmp_path: Path, name: str) -> None:
    codec, options = ("mpeg4", {}) if name == "v.avi" else ("libx264", {})
    if name == "v.mp4":
        options = {"movflags": "faststart"}
    times = range(0, 1920, 40)
    path = write_with_times(tmp_path / name, times, codec=codec, b_frames=2, tick=Fraction(1, 25), options=options)
    content = path.read_bytes()
    for part in (0.9, 0.6):
        path.write_bytes(content[: int(len(content) * part)])
        found: list[int] = []
        with pytest.raises(VideoError, match=r"truncated: \d+ frames left; it"), FrameSequence(path) as video:
            found.extend(shown.number for shown in video)
        assert len(found) == probe_video(path, allow_partial=True).num_frames < 48


def test_what_is_odd_but_whole_is_given_to_its_end(tmp_path: Path) -> None:
    plain = clips.write_stamped_video(tmp_path / "p.ts", codec="mpeg2video", container="mpegts", num_frames=24)
    content = plain.read_bytes()
    (tmp_path / "joined.ts").write_bytes(content + content)
    assert stamps(tmp_path / "joined.ts") == [*range(24), *range(24)]
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=24)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1") + 20])
    assert stamps(path) == list(range(24))


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty.avi").touch()
    clips.write_audio_only(tmp_path / "sound.avi")
    for name, reason in (
        ("text.avi", "not a readable video"), ("empty.avi", "empty"), ("sound.avi", "no video stream"),
        ("none.avi", "can't be read"),
    ):  # fmt: skip
        with pytest.raises(VideoError) as caught:
            FrameSequence(tmp_path / name)
        assert caught.value.reason == reason


def test_a_size_that_changes_is_an_error(tmp_path: Path) -> None:
    one = clips.write_stamped_video(tmp_path / "1.ts", codec="mpeg2video", container="mpegts", num_frames=12)
    other = clips.write_stamped_video(
        tmp_path / "2.ts", codec="mpeg2video", container="mpegts", num_frames=12, size=(160, 128)
    )
    (tmp_path / "v.ts").write_bytes(one.read_bytes() + other.read_bytes())
    with pytest.raises(FrameError, match=r"v\.ts: frame size changes: 128x96, then 160x128"):
        stamps(tmp_path / "v.ts")

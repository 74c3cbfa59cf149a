"""Videos of each codec in sizes that decoders treat differently."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from bench.videos.odd_sizes import OddVideo, has_encoder, odd_videos, write_odd_video


def test_each_codec_comes_in_each_size() -> None:
    videos = list(odd_videos())
    codecs = {video.codec for video in videos}
    assert {"mpeg4", "mjpeg"} <= codecs
    for codec in codecs:
        own = [video for video in videos if video.codec == codec]
        assert {(video.width, video.height) for video in own} == {(320, 240), (424, 240), (340, 256), (176, 162)}
        assert [video.is_whole for video in own].count(True) == (2 if any(video.b_frames for video in own) else 1)
    assert OddVideo("h264", 320, 240, 2).name == "h264 320x240, B-frames"


@pytest.mark.parametrize("codec", ["mpeg4", "h264", "hevc", "vp8", "vp9", "av1", "mjpeg"])
def test_a_video_is_what_it_says(codec: str, tmp_path: Path) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this PyAV has no {codec} encoder")
    before = os.sched_getscheduler(0)
    path = write_odd_video(tmp_path, OddVideo(codec, 176, 162, 2 if codec == "h264" else 0))
    assert os.sched_getscheduler(0) == before
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.width, stream.codec_context.height) == (176, 162)
        assert sum(1 for _ in container.decode(stream)) == 40

"""Frames, loader, prediction and timeline show the same pixels of the same frame, whatever the file is like."""

from __future__ import annotations

from pathlib import Path

from exact.encoders import Encoding, write
from exact.readers import disagreements
from oddities import ODDITIES, write_oddities

# encoder, pixel format, muxer, suffix: one for each way to read.
PLAIN = [
    ("mpeg4", "yuv420p", "avi", "avi"),
    ("libx264", "yuv420p", "mpegts", "ts"),
    ("libx265", "yuv420p", "mp4", "mp4"),
    ("libvpx-vp9", "yuv420p", "webm", "webm"),
    ("libsvtav1", "yuv420p", "matroska", "mkv"),
    ("mpeg2video", "yuv420p", "mpeg", "mpg"),
    ("prores", "yuv422p10le", "mov", "mov"),
    ("png", "rgb24", "avi", "avi"),
    ("rawvideo", "gray", "avi", "avi"),
    ("qtrle", "rgb24", "mov", "mov"),
    ("wmv2", "yuv420p", "asf", "wmv"),
]


def test_all_readers_show_the_frames_of_a_full_decode(tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "a"
    assert len(write_oddities(folder)) == len(ODDITIES) > 12
    for number, (encoder, pix_fmt, muxer, suffix) in enumerate(PLAIN):
        write(folder / f"{number}_{encoder}.{suffix}", Encoding(encoder, pix_fmt), muxer)
    assert list(disagreements(tmp_path / "videos")) == []

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from clips import write_stamped_video

from pipelines.containers.file_checks import (
    AVI_HEAD,
    MAX_PIXELS,
    check_regular,
    check_size,
    is_avi,
)
from pipelines.errors import VideoError


def test_an_avi_is_told_by_its_head(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_stamped_video(path, num_frames=4)
    assert is_avi(path.read_bytes()[:AVI_HEAD])
    for other in (b"", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x20ftypisom"):
        assert not is_avi(other)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    kinds = (("empty", "empty"), ("fifo", "FIFO"), ("socket", "socket"), (".", "folder"), ("none", "can't be read"))
    for name, said in (*kinds, ("/dev/zero", "device")):
        with pytest.raises(VideoError, match=f": .*{said}"):
            check_regular(str(tmp_path / name))


def test_a_frame_may_have_so_many_pixels() -> None:
    check_size("v", 7680, 4320, MAX_PIXELS)
    check_size("v", 8, 4, 32)
    said = r"^v: too large: 11x3 px, the limit is 32 px a frame; --max-pixels 33 allows it$"
    with pytest.raises(VideoError, match=said):
        check_size("v", 11, 3, 32)
    check_size("v", 11, 3, 33)

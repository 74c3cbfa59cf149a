"""What is no regular file is refused at once, and no more is read than is allowed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pipelines.input.regular_files import open_regular, read_regular


def test_a_file_of_just_the_size_that_is_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("f")
    assert read_regular(tmp_path / "f", 5) == b"12345"
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes; expected at most so many"):
        read_regular(tmp_path / "f", 4)


def test_what_never_ends_or_never_comes_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a FIFO; expected a regular file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a folder"):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="it is a device"):
        open_regular(Path("/dev/zero"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="No such device or address"):
            open_regular(tmp_path / "socket")


def test_links_that_lead_nowhere_are_errors_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "dead").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "dead")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_regular(tmp_path / "loop")
    assert len(os.listdir("/proc/self/fd")) < 100

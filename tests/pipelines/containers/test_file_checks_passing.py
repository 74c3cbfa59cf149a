from __future__ import annotations

import errno
import os
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path

import av
import av.error
import clips
import pytest
from written import REPO

from pipelines.errors import FrameError, VideoError
from pipelines.video.probe import probe_video


def test_an_error_of_the_system_may_pass_and_one_that_the_bytes_prove_may_not(tmp_path: Path) -> None:
    with pytest.raises(VideoError) as gone:
        probe_video("gone.avi", root=str(tmp_path))
    assert (gone.value.reason, gone.value.is_passing) == ("can't be read", True)
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError) as text:
        probe_video("text.avi", root=str(tmp_path))
    assert (text.value.reason, text.value.is_passing) == ("not a readable video", False)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_each_error_of_a_disk_or_a_network_may_pass(number: int) -> None:
    error = VideoError("x.avi", "can't be read")
    error.__cause__ = OSError(number, os.strerror(number))
    assert error.is_passing


def test_an_error_of_the_system_may_pass_also_where_ffmpeg_reports_it(tmp_path: Path) -> None:
    with pytest.raises(av.error.FFmpegError) as gone:
        av.open(f"file:{tmp_path}/gone.avi")
    error = VideoError("x.avi", "not a readable video")
    error.__cause__ = gone.value
    assert error.is_passing


@pytest.mark.parametrize("kind", [VideoError, FrameError])
def test_another_process_knows_too_whether_an_error_may_pass(kind: type[VideoError]) -> None:
    proven, raised = (kind("x.avi", "can't be read", "Input/output error") for _ in range(2))
    raised.__cause__ = OSError(errno.EIO, "Input/output error")
    ours, theirs = Pipe()
    with ours, theirs:
        for error, passes in ((proven, False), (raised, True), (kind("x.avi", "hangs", passing=True), True)):
            ours.send(error)
            sent = theirs.recv()
            assert (type(sent), str(sent), sent.is_passing) == (kind, str(error), passes)


WITH_LITTLE_MEMORY = """
import sys
from resource import RLIMIT_AS, getpagesize, getrlimit, setrlimit
from pipelines.errors import VideoError
from pipelines.video.probe import probe_video
for left in (20, 48, 100, 150):  # MiB, of frames of 47 MiB, and twice as much in RGB
    pages = int(open("/proc/self/statm").read().split()[0])
    setrlimit(RLIMIT_AS, (pages * getpagesize() + (left << 20), getrlimit(RLIMIT_AS)[1]))
    try:
        probe_video(sys.argv[1])
    except VideoError as error:
        print(error.reason, error.is_passing)
"""


def test_a_video_for_which_there_is_too_little_memory_may_be_tried_again(tmp_path: Path) -> None:
    """In a process of its own: this one may have memory that it does not use."""
    path = clips.write_stamped_video(tmp_path / "a.mp4", num_frames=1, size=(7680, 4320))
    command, environment = (
        [sys.executable, "-c", WITH_LITTLE_MEMORY, str(path)],
        {**os.environ, "PYTHONPATH": str(REPO)},
    )
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(said) == {"needs more memory than there is True"}
    assert len(said) >= 2

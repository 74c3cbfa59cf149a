"""What a process that decodes can't do any more. Each is tried in such a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from clips import write_stamped_video

from pipelines.errors import VideoError
from pipelines.isolation.jobs import do_apart
from pipelines.isolation.process import Tell
from pipelines.isolation.rights import give_up_rights
from pipelines.video.decoder import read_frames
from pipelines.video.probe import probe_video
from pipelines.video.record import VideoRecord


class Attempt(NamedTuple):
    """Tries what a job names, and tells what came of it."""

    folder: str

    def __call__(self, job: str, tell: Tell) -> str:
        try:
            return str(getattr(self, job)())
        except (OSError, MemoryError) as error:
            return f"{type(error).__name__} {getattr(error, 'errno', '')}"

    def memory(self) -> int:
        return len(bytearray(5 << 30))

    def some_memory(self) -> int:
        return len(bytearray(1 << 30))

    def large_file(self) -> int:
        return (Path(self.folder) / "large").write_bytes(bytes(17 << 20))

    def says_something(self) -> int:
        return os.write(2, b"a warning of the decoder\n")

    def core(self) -> str:
        import resource

        return str(resource.getrlimit(resource.RLIMIT_CORE))

    def new_privileges(self) -> str:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("NoNewPrivs:"))


def test_a_process_that_decodes_has_limits_which_nothing_lifts(tmp_path: Path) -> None:
    wanted = {
        "memory": "MemoryError ",
        "some_memory": str(1 << 30),
        "large_file": "OSError 27",  # EFBIG
        "says_something": "25",
        "core": "(0, 0)",
        "new_privileges": "1",
    }
    found = do_apart(Attempt(str(tmp_path)), list(wanted), workers=1)
    assert dict(zip(wanted, found, strict=True)) == wanted
    assert (tmp_path / "large").stat().st_size <= 17 << 20


class Hungry(NamedTuple):
    """Reads frames of a video in a process that has little memory left, and tells what came of it."""

    record: VideoRecord
    root: str

    def __call__(self, job: int, tell: Tell) -> str:
        give_up_rights(memory=128 << 20)
        try:
            return str(len(read_frames(self.record, range(job), root=self.root)))
        except VideoError as error:
            return f"{error.reason}, {'passing' if error.is_passing else 'for good'}"


def test_a_video_that_needs_more_memory_than_its_process_may_take_is_a_bad_video(tmp_path: Path) -> None:
    # 40 frames of 1920x1080 px take 250 MB as they are read.
    write_stamped_video(tmp_path / "large.avi", num_frames=40, size=(1920, 1088), codec="mpeg4")
    hungry = Hungry(probe_video("large.avi", root=tmp_path), str(tmp_path))
    assert list(do_apart(hungry, [40, 2], workers=1)) == ["needs more memory than there is, passing", "2"]

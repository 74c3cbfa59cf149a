"""The probing of one video file: what a process of the pool does with each, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipelines.containers.file_checks import Acceptance, check_damage
from pipelines.errors import VideoError
from pipelines.file_bytes import checksum_of
from pipelines.isolation.process import Tell
from pipelines.video.record import Span, VideoRecord

OnFile = Callable[[str, float], None]  # called with the path of a long file, and the share of it that is decoded


class ProbeJob(NamedTuple):
    """A video to probe: the path of its file, and the part of it (None: the whole file).

    `was` are size in bytes and checksum that the file had when it was probed before; None if it was not. `uncut` as in
    probe_video.
    """

    path: str
    span: Span | None = None
    was: tuple[int, str] | None = None
    uncut: bool = False


class Unchanged(NamedTuple):
    """The result for a file that has the size and checksum that it had: only the time of its last change differs."""

    mtime_ns: int


ProbeResult = VideoRecord | VideoError | Unchanged


class Probe(NamedTuple):
    """How files are probed: relative to which folder, which of them are taken, and by how many threads each."""

    root: str
    accept: Acceptance
    threads: int

    def __call__(self, job: ProbeJob, tell: Tell) -> ProbeResult:
        """The result of `job`; `tell` hears how far a file is that must be decoded."""
        from pipelines.video.probe import probe_video

        path = Path(self.root) / job.path
        try:
            unchanged = _unchanged(path, job.was)
            if unchanged is not None:
                return unchanged
            record = probe_video(
                job.path, root=self.root, allow_partial=self.accept.partial, max_pixels=self.accept.max_pixels,
                span=job.span, uncut=job.uncut, threads=self.threads, watch=tell,
            )  # fmt: skip
            check_damage(str(path), record.corrupt, record.num_frames, self.accept.max_corrupt)
        except VideoError as error:
            return error
        return record


def _unchanged(path: Path, was: tuple[int, str] | None) -> Unchanged | None:
    """The result for a file that still is what it `was`; None for any other."""
    if was is None:
        return None
    try:
        status = path.stat()
        same = (status.st_size, checksum_of(str(path), status.st_mtime_ns)) == was
    except OSError:
        return None
    return Unchanged(status.st_mtime_ns) if same else None

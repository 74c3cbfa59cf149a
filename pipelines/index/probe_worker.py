"""The probing of one video file: what a process of the pool does with each, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipelines.containers.file_checks import (
    DOES_NOT_DECODE,
    TRUNCATED,
    Acceptance,
    check_damage,
    option_for_damage,
)
from pipelines.errors import VideoError
from pipelines.file_bytes import checksum_of
from pipelines.isolation.process import Tell
from pipelines.video.record import Span, VideoRecord

_ENDS_EARLY = (TRUNCATED, DOES_NOT_DECODE)  # reasons of errors before which there may be frames
OnFile = Callable[[str, float], None]  # called with the path of a long file, and the share of it that is decoded


class ProbeJob(NamedTuple):
    """A video to probe: the path of its file, and the part of it (None: the whole file).

    `was` are size in bytes and checksum that the file had when it was probed before; None if it was not. `uncut` and
    `full` as in probe_video.
    """

    path: str
    span: Span | None = None
    was: tuple[int, str] | None = None
    uncut: bool = False
    full: bool = False


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
        path = Path(self.root) / job.path
        try:
            unchanged = _unchanged(path, job.was)
            if unchanged is not None:
                return unchanged
            record = self._record(job, tell, partial=self.accept.partial)
            check_damage(str(path), record.corrupt, record.num_frames, self.accept.max_corrupt)
        except VideoError as error:
            takes_rest = not self.accept.partial and not error.is_passing and error.reason in _ENDS_EARLY
            return self._with_advice(error, job, tell) if takes_rest else error
        return record

    def _record(self, job: ProbeJob, tell: Tell, *, partial: bool) -> VideoRecord:
        from pipelines.video.probe import probe_video

        return probe_video(
            job.path, root=self.root, allow_partial=partial, max_pixels=self.accept.max_pixels, span=job.span,
            uncut=job.uncut, threads=self.threads, watch=tell, full=job.full or self.accept.decodes,
        )  # fmt: skip

    def _with_advice(self, error: VideoError, job: ProbeJob, tell: Tell) -> VideoError:
        """`error`, which ends a video early, with the options that take the frames before that, if there are any.

        That is found out by trying: all frames may be gone, or too many of the rest damaged.
        """
        try:
            rest = self._record(job, tell, partial=True)
        except VideoError:
            return error
        too_damaged = rest.corrupt > self.accept.max_corrupt * rest.num_frames
        more = f" {option_for_damage(rest.corrupt, rest.num_frames)}" if too_damaged else ""
        advice = f"`data index --allow-partial{more}` and `predict --allow-partial` take the frames before that"
        return VideoError(error.path, error.reason, f"{error.detail}; {advice}")


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

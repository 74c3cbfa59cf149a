"""Decodes the files of an index from start to end, to find out which of their frames can't be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import BACK, DOES_NOT_DECODE, TRUNCATED, require_regular
from pipelines.containers.notes import DAMAGED
from pipelines.errors import INDEX_FULLY, VideoError
from pipelines.file_bytes import FileBytes
from pipelines.isolation.jobs import STALL_SECONDS, Lost, do_apart
from pipelines.isolation.process import Tell
from pipelines.machine.cpus import usable_cpus
from pipelines.video.proof import FullDecode, decode_fully
from pipelines.video.record import VideoRecord

CHANGED, UNREADABLE = "changed since it was indexed", "can't be read"
_PARTIAL = {TRUNCATED, DAMAGED}  # notes of videos that end before their files do
_TELL_SECONDS = 1.0


@dataclass(frozen=True)
class Decoded:
    """What decoding the whole file at `path` gave.

    `frames` is the number of frames, `corrupt` how many of them the decoder marks as damaged. `reason` and `detail` say
    why the file can't be read as it was indexed; "" if it can. `is_proven`: the bytes of the file are the reason, so
    that it is the same at each try.
    """

    path: str
    frames: int = 0
    corrupt: int = 0
    reason: str = ""
    detail: str = ""
    is_proven: bool = False


class IndexedFile(NamedTuple):
    """A file of an index, and what the index knows of it; `num_frames` -1 where it has only parts of the file."""

    path: str
    size: int
    checksum: str
    num_frames: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, record: VideoRecord) -> IndexedFile:
        """The file of `record`."""
        count = record.num_frames if record.span is None else -1
        return cls(record.path, record.size, record.checksum, count, record.notes)


def decode_all(
    files: Sequence[IndexedFile],
    root: Path,
    *,
    done: Callable[[], None] | None = None,
    workers: int | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> list[Decoded]:
    """What decoding each of `files` under `root` gives, in their order.

    `workers` processes decode (None: one for each usable CPU; 0: this process). A file with which a process crashes or
    hangs is named like a damaged one. `done` is called after each file. Raises EnvironmentProblem where no process can
    be started.
    """
    count = usable_cpus() if workers is None else workers
    results = do_apart(Decoding(str(root)), files, workers=count, stall_seconds=stall_seconds)
    found: list[Decoded] = []
    for file, result in zip(files, results, strict=True):
        found.append(Decoded(file.path, 0, 0, *result, is_proven=True) if isinstance(result, Lost) else result)
        if done is not None:
            done()
    return found


class Decoding(NamedTuple):
    """Decodes files under the folder `root`, in a process of its own."""

    root: str

    def __call__(self, job: IndexedFile, tell: Tell) -> Decoded:
        """What decoding the whole file of `job` gives: the frames that were counted when it was indexed, or why not."""
        path = Path(self.root) / job.path
        try:
            require_regular(str(path), path.stat(), BACK)
        except VideoError as error:
            return Decoded(job.path, reason=error.reason, detail=error.detail)
        except OSError as error:
            return Decoded(job.path, reason=UNREADABLE, detail=reason_of(error))
        try:
            with FileBytes(path) as opened:
                if (opened.size, opened.checksum()) != (job.size, job.checksum):
                    return Decoded(job.path, reason=CHANGED, detail=INDEX_FULLY, is_proven=True)
            facts = decode_fully(str(path), samples="none", watch=_now_and_then(tell))
        except VideoError as error:
            proven = not error.is_passing
            return Decoded(job.path, reason=error.reason, detail=error.detail, is_proven=proven)
        except OSError as error:
            return Decoded(job.path, reason=UNREADABLE, detail=reason_of(error))
        return _judged(job, facts)


def _judged(file: IndexedFile, facts: FullDecode) -> Decoded:
    """What the full decode says of a file that is as it was indexed."""
    frames, corrupt, is_known = len(facts.packets), len(facts.corrupt), bool(_PARTIAL.intersection(file.notes))
    reason = detail = ""
    if facts.error and not is_known:
        reason, detail = DOES_NOT_DECODE, f"after frame {frames}: {facts.error}"
    elif file.num_frames not in (-1, frames) and not is_known:
        reason = "lacks frames" if frames < file.num_frames else "more frames"
        detail = f"{frames} frames decode, {file.num_frames} were counted"
    return Decoded(file.path, frames, corrupt, reason, detail, is_proven=bool(reason))


def _now_and_then(tell: Tell) -> Callable[[int], None]:
    """What to call with the number of decoded packets, so that a long file doesn't count as one that hangs."""
    told = monotonic()

    def watch(_: int) -> None:
        nonlocal told
        if monotonic() - told >= _TELL_SECONDS:
            told = monotonic()
            tell(0.0)

    return watch

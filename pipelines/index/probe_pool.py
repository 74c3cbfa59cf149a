"""Probes many video files in parallel processes. One that crashes or blocks its process is the only one that is bad."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.containers.file_checks import ACCEPT_WHOLE, Acceptance
from pipelines.errors import VideoError
from pipelines.index.probe_worker import OnFile, Probe, ProbeJob, ProbeResult
from pipelines.isolation.jobs import STALL_SECONDS, Lost, do_apart
from pipelines.machine.cpus import usable_cpus

_FEW = 64  # fewer files than this are probed sooner than a second process starts,
_LARGE = 1 << 26  # unless they have more bytes than this


def probe_all(
    paths: Sequence[str | ProbeJob],
    root: Path,
    *,
    workers: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    watch: OnFile | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Iterator[ProbeResult]:
    """For each of `paths` under `root`, in order, its record, or the VideoError that says why it has none.

    A file that was probed before and has the same bytes is not probed again: its result is Unchanged. One with which
    its process dies, or does nothing for `stall_seconds`, is an error that may pass.

    `workers`: how many processes probe; None: one for each usable CPU; 0: this process does, and what it crashes on
    ends it. Of files that must be decoded as a whole, `watch` is told how far they are. If there are fewer of them than
    processes, several threads decode each. Raises EnvironmentProblem where no process can be started.
    """
    jobs = [ProbeJob(path) if isinstance(path, str) else path for path in paths]
    count = usable_cpus() if workers is None else workers
    probe = Probe(str(root), accept, max(1, count // max(1, len(jobs))))
    if count and len(jobs) < _FEW and _total_bytes(jobs, root) < _LARGE:
        count = 1

    def tell(job: ProbeJob, share: float) -> None:
        if watch is not None:
            watch(job.path, share)

    results = do_apart(probe, jobs, workers=count, stall_seconds=stall_seconds, watch=tell)
    for job, result in zip(jobs, results, strict=True):
        yield VideoError(root / job.path, *result, passing=True) if isinstance(result, Lost) else result


def _total_bytes(jobs: Sequence[ProbeJob], root: Path) -> int:
    total = 0
    for job in jobs:
        with suppress(OSError):
            total += (root / job.path).stat().st_size
    return total

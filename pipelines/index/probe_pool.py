"""Probes many video files in parallel processes. If a file crashes its process, only that file is reported as bad."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NamedTuple

from pipelines.containers.file_checks import ACCEPT_WHOLE, Acceptance
from pipelines.errors import VideoError
from pipelines.file_bytes import checksum_of
from pipelines.machine.cpus import usable_cpus
from pipelines.video.record import Span, VideoRecord

_CHUNK = 32
_FEW = 64  # fewer files than this are probed sooner than a second process starts,
_LARGE = 1 << 26  # unless they have more bytes than this
_WAIT_SECONDS = 0.2

OnFile = Callable[[str, float], None]  # called with the path of a long file, and the share of it that is decoded

_told: SimpleQueue[tuple[str, float]] | None = None  # in a process of the pool: the way to the parent


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


def probe_all(
    paths: Sequence[str | ProbeJob],
    root: Path,
    *,
    workers: int | None = None,
    accept: Acceptance = ACCEPT_WHOLE,
    watch: OnFile | None = None,
) -> Iterator[ProbeResult]:
    """For each of `paths` under `root`, in order, its record, or the VideoError that says why it has none.

    A file that was probed before and has the same bytes is not probed again: its result is Unchanged.

    `workers`: how many processes probe; None: one for each usable CPU. Of files that must be decoded as a whole,
    `watch` is told how far they are. If there are fewer of them than processes, several threads decode each.
    """
    jobs = [ProbeJob(path) if isinstance(path, str) else path for path in paths]
    count = usable_cpus() if workers is None else workers
    probe = partial(_probe_chunk, root=str(root), accept=accept, threads=max(1, count // max(1, len(jobs))))
    few = len(jobs) < _FEW
    if count <= 1 or len(jobs) <= 1 or (few and _total_bytes(jobs, root) < _LARGE):
        for job in jobs:
            yield from probe([job], watch=watch)
        return
    size = 1 if few else _CHUNK
    chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    told: SimpleQueue[tuple[str, float]] = multiprocessing.get_context("spawn").SimpleQueue()
    with _pool(min(count, len(chunks)), told) as pool:
        futures: list[Future[list[ProbeResult]]] = []
        with suppress(BrokenProcessPool):  # a process may die before all chunks are submitted
            futures += (pool.submit(probe, c) for c in chunks)
        for chunk, future in zip_longest(chunks, futures):
            try:
                results = _result(future, told, watch) if future else _one_by_one(chunk, root, probe)
            except BrokenProcessPool:
                results = _one_by_one(chunk, root, probe)
            yield from results


def _total_bytes(jobs: Sequence[ProbeJob], root: Path) -> int:
    total = 0
    for job in jobs:
        with suppress(OSError):
            total += (root / job.path).stat().st_size
    return total


def _result(
    future: Future[list[ProbeResult]], told: SimpleQueue[tuple[str, float]], watch: OnFile | None
) -> list[ProbeResult]:
    """The result of `future`; while it is waited for, `watch` hears what the processes tell."""
    while True:
        try:
            return future.result(timeout=_WAIT_SECONDS)
        except NotYetError:
            if future.done():
                raise
        while not told.empty():
            path, share = told.get()
            if watch is not None:
                watch(path, share)


def _pool(workers: int, told: SimpleQueue[tuple[str, float]] | None = None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_set_told, initargs=(told,)
    )


def _set_told(told: SimpleQueue[tuple[str, float]] | None) -> None:
    global _told
    _told = told


def _probe_chunk(
    jobs: list[ProbeJob], *, root: str, accept: Acceptance, threads: int, watch: OnFile | None = None
) -> list[ProbeResult]:
    from pipelines.video.probe import probe_video

    results: list[ProbeResult] = []
    tell = watch if watch is not None else None if _told is None else lambda path, share: _told.put((path, share))
    for path, span, was, uncut in jobs:
        try:
            results.append(
                _unchanged(Path(root) / path, was)
                or probe_video(
                    path, root=root, allow_partial=accept.partial, max_pixels=accept.max_pixels, span=span,
                    uncut=uncut, threads=threads, watch=None if tell is None else partial(tell, path),
                )
            )  # fmt: skip
        except VideoError as error:
            results.append(error)
    return results


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


def _one_by_one(
    jobs: list[ProbeJob], root: Path, probe: Callable[[list[ProbeJob]], list[ProbeResult]]
) -> list[ProbeResult]:
    """The results of a chunk that was lost when a process died: each file is probed alone.

    So if the process dies again, it is known which file did it.
    """
    results: list[ProbeResult] = []
    pool: ProcessPoolExecutor | None = None
    for job in jobs:
        pool = pool or _pool(1)
        try:
            results += pool.submit(probe, [job]).result()
        except BrokenProcessPool:
            results.append(VideoError(str(root / job.path), "crashes the decoder", "the process that probed it died"))
            pool = None
    if pool is not None:
        pool.shutdown()
    return results

"""Many files probed side by side; a file that kills its process is found out and blamed alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

from pipelines.errors import VideoError
from pipelines.machine.cpus import usable_cpus
from pipelines.video.record import Span, VideoRecord

_CHUNK = 32
_FEW = 64  # fewer files than this are done before a second process has started

ProbeResult = VideoRecord | VideoError
ProbeJob = tuple[str, Span | None]  # a path, and the part of the file that counts


def probe_all(
    paths: Sequence[str | ProbeJob], root: Path, *, workers: int | None = None, allow_partial: bool = False
) -> Iterator[ProbeResult]:
    """The record of each of `paths` under `root`, in order, or the VideoError that says why there is none."""
    jobs = [(path, None) if isinstance(path, str) else path for path in paths]
    count = usable_cpus() if workers is None else workers
    if count <= 1 or len(jobs) < _FEW:
        for job in jobs:
            yield from _probe_chunk([job], str(root), allow_partial)
        return
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    with _pool(count) as pool:
        futures: list[Future[list[ProbeResult]]] = []
        with suppress(BrokenProcessPool):  # a process may die before all is handed out
            futures += (pool.submit(_probe_chunk, c, str(root), allow_partial) for c in chunks)
        for chunk, future in zip_longest(chunks, futures):
            try:
                results = future.result() if future else _one_by_one(chunk, root, allow_partial)
            except BrokenProcessPool:
                results = _one_by_one(chunk, root, allow_partial)
            yield from results


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _probe_chunk(jobs: list[ProbeJob], root: str, allow_partial: bool) -> list[ProbeResult]:
    from pipelines.video.probe import probe_video

    results: list[ProbeResult] = []
    for path, span in jobs:
        try:
            results.append(probe_video(path, root=root, allow_partial=allow_partial, span=span))
        except VideoError as error:
            results.append(error)
    return results


def _one_by_one(jobs: list[ProbeJob], root: Path, allow_partial: bool) -> list[ProbeResult]:
    """A chunk whose process died, or died beside another: each file in a process that only it can take down."""
    results: list[ProbeResult] = []
    pool: ProcessPoolExecutor | None = None
    for job in jobs:
        pool = pool or _pool(1)
        try:
            results += pool.submit(_probe_chunk, [job], str(root), allow_partial).result()
        except BrokenProcessPool:
            results.append(VideoError(str(root / job[0]), "crashes the decoder", "its process died"))
            pool = None
    if pool is not None:
        pool.shutdown()
    return results

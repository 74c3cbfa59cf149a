"""Probes many video files in parallel processes. If a file crashes its process, only that file is reported as bad."""

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
_FEW = 64  # fewer files than this are probed sooner than a second process starts

ProbeResult = VideoRecord | VideoError
ProbeJob = tuple[str, Span | None]  # a path, and the part of the file that is the video; None: the whole file


def probe_all(
    paths: Sequence[str | ProbeJob], root: Path, *, workers: int | None = None, allow_partial: bool = False
) -> Iterator[ProbeResult]:
    """For each of `paths` under `root`, in order, its record, or the VideoError that says why it has none.

    `workers`: how many processes probe; None: one for each usable CPU.
    """
    jobs = [(path, None) if isinstance(path, str) else path for path in paths]
    count = usable_cpus() if workers is None else workers
    if count <= 1 or len(jobs) < _FEW:
        for job in jobs:
            yield from _probe_chunk([job], str(root), allow_partial)
        return
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    with _pool(count) as pool:
        futures: list[Future[list[ProbeResult]]] = []
        with suppress(BrokenProcessPool):  # a process may die before all chunks are submitted
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
    """The results of a chunk that was lost when a process died: each file is probed alone.

    So if the process dies again, it is known which file did it.
    """
    results: list[ProbeResult] = []
    pool: ProcessPoolExecutor | None = None
    for job in jobs:
        pool = pool or _pool(1)
        try:
            results += pool.submit(_probe_chunk, [job], str(root), allow_partial).result()
        except BrokenProcessPool:
            results.append(VideoError(str(root / job[0]), "crashes the decoder", "the process that probed it died"))
            pool = None
    if pool is not None:
        pool.shutdown()
    return results

"""DALI at work on one batch at a time, and what is done when it fails on one.

A DALI pipeline that has failed is of no use any more and does not say which sample it failed on. So a new one is tried
on each encoded clip alone; those it fails on are decoded by PyAV instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.dali.decoder_check import telling_line
from pipelines.dali.graph import ClipPipeline
from pipelines.dali.versions import DALI_ERRORS
from pipelines.errors import EnvironmentProblem
from pipelines.machine.memory import fitting_size
from pipelines.stream import ClipStream, Sample

_log = logging.getLogger(__name__)
# What DALI says where there was no memory (dali/core/cuda_error.h).
_OUT_OF_MEMORY = ("Can't allocate", "CUDA allocation failed", "out of memory", "bad_alloc")
_TELLING = 3  # videos of which DALI decodes none: it is the decoder that fails, not they


class DaliInput(NamedTuple):
    """A row of a batch as DALI gets it: `data` is frames uint8 [T, h, w, 3], or encoded bytes uint8 [B]."""

    data: NDArray[np.uint8]
    sample: Sample


Redo = Callable[[int, str], DaliInput]  # (row, why DALI failed on it) -> the same row, decoded by PyAV


class GraphRunner:
    """The graph of a stream, at work on a batch; `failed_videos` are those that DALI could not decode."""

    def __init__(self, stream: ClipStream, *, threads: int) -> None:
        """Build the graph. Raises EnvironmentProblem where DALI can't."""
        self._stream, self._threads = stream, threads
        self._rows: list[DaliInput] | None = None
        self.failed_videos: set[int] = set()
        self.decodes = stream.limits is not None
        self._pipeline = self._new_pipeline()

    @property
    def busy(self) -> bool:
        """Whether a batch was started and not finished."""
        return self._rows is not None

    def start(self, rows: Sequence[DaliInput]) -> None:
        """Set DALI to work on a batch; its arrays are read in place until `finish` has returned."""
        self._rows = list(rows)
        self._feed(self._rows)

    def finish(self, redo: Redo) -> Any:
        """The clips of the batch that was started, a DLPack object; those DALI fails on are got from `redo`.

        Raises EnvironmentProblem if the GPU has no memory for it, or DALI fails on frames that are decoded already.
        """
        assert self._rows is not None, "start a batch first"
        rows, self._rows = self._rows, None
        try:
            return self._pipeline.clips()
        except DALI_ERRORS as error:
            if says_out_of_memory(error):
                raise self._too_large(rows) from error
            if not any(row.sample.numbers for row in rows):
                raise EnvironmentProblem(f"DALI failed: {telling_line(error)}") from error
        self._restart()
        self._redo_failing(rows, redo)
        self._feed(rows)
        return self._pipeline.clips()

    def drop(self) -> None:
        """Forget the batch that was started."""
        if self._rows is not None:
            self._rows = None
            try:
                self._pipeline.clips()
            except DALI_ERRORS:  # it failed on clips that nobody wants any more
                self._restart()

    def _redo_failing(self, rows: list[DaliInput], redo: Redo) -> None:
        """Put what PyAV decodes in place of the encoded rows that DALI fails on."""
        encoded = [number for number, row in enumerate(rows) if row.sample.numbers]
        good, bad = set(), set()
        reason = ""
        for number in encoded:
            video = rows[number].sample.video_id
            try:
                self._feed([rows[number]])
                self._pipeline.clips()
                good.add(video)
            except DALI_ERRORS as error:
                self._restart()
                reason = telling_line(error)
                bad.add(video)
                rows[number] = redo(number, reason)
        self.failed_videos |= bad
        if not good and len(bad) >= _TELLING:
            self.decodes = False
            _log.warning("DALI decodes none of %d videos (%s): PyAV decodes from here on", len(bad), reason)

    def _feed(self, rows: Sequence[DaliInput]) -> None:
        self._pipeline.feed([row.data for row in rows], [row.sample for row in rows])

    def _restart(self) -> None:
        self._pipeline = self._new_pipeline()

    def _new_pipeline(self) -> ClipPipeline:
        try:
            return ClipPipeline(self._stream, threads=self._threads)
        except DALI_ERRORS as error:
            if says_out_of_memory(error):
                raise EnvironmentProblem(
                    f"{self._stream.device}: no memory left to start DALI; end what else uses the GPU"
                ) from error
            on_gpu = "; does this build of DALI fit the GPU and its driver? r3d-fast doctor says" * (
                self._stream.device != "cpu"
            )
            raise EnvironmentProblem(f"DALI can't be started: {telling_line(error)}{on_gpu}") from error

    def _too_large(self, rows: Sequence[DaliInput]) -> EnvironmentProblem:
        """The error that says how many clips fit, found by trying."""

        def attempt(count: int) -> None:
            self._restart()
            self._feed(rows[:count])
            self._pipeline.clips()

        device = self._stream.device
        fits = fitting_size(len(rows), attempt, lambda error: isinstance(error, (*DALI_ERRORS, EnvironmentProblem)))
        remedy = f"{fits} fit: loader.batch_size={fits}" if fits else "not even one fits: end what else uses the GPU"
        return EnvironmentProblem(f"{device}: out of memory for a batch of {len(rows)} clips; {remedy}")


def says_out_of_memory(error: Exception) -> bool:
    """Whether DALI failed for want of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)

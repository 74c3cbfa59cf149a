"""Runs the DALI graph on one batch at a time, and finds the clips that DALI can't decode.

A DALI pipeline that has failed can't be used again, and does not say which clip it failed on. So a new pipeline tries
each encoded clip alone, and PyAV decodes those that fail.
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
# Parts of DALI's messages when it is out of memory (dali/core/cuda_error.h).
_OUT_OF_MEMORY = ("Can't allocate", "CUDA allocation failed", "out of memory", "bad_alloc")
_TELLING = 3  # if DALI decodes none of this many videos, the fault is with the decoder and not with the videos


class DaliInput(NamedTuple):
    """A row of a batch as DALI gets it; `data` is frames uint8 [T, h, w, 3], or encoded bytes uint8 [B]."""

    data: NDArray[np.uint8]
    sample: Sample


# (row, why DALI failed on it, "" if not because of the row) -> the same row, decoded by PyAV
Redo = Callable[[int, str], DaliInput]


class GraphRunner:
    """Runs the graph of a stream, one batch at a time.

    `failed_videos` are the numbers of the videos that DALI could not decode. `decodes` says whether DALI is given
    encoded clips.
    """

    def __init__(self, stream: ClipStream, *, threads: int) -> None:
        """Build the graph. Raises EnvironmentProblem if DALI can't build it."""
        self._stream, self._threads = stream, threads
        self._rows: list[DaliInput] | None = None
        self.failed_videos: set[int] = set()
        self.decodes = stream.limits is not None
        self._pipeline = self._new_pipeline()

    def use_threads(self, threads: int) -> None:
        """Give DALI this number of threads from the next batch on. No batch may be started and not finished."""
        assert not self.busy, "finish the batch first"
        if threads != self._threads:
            self._threads = threads
            self._restart()

    @property
    def busy(self) -> bool:
        """Whether a batch has been started and not finished."""
        return self._rows is not None

    def start(self, rows: Sequence[DaliInput]) -> None:
        """Start DALI on a batch. It reads the arrays in place, so they must not change until `finish` has returned."""
        self._rows = list(rows)
        self._feed(self._rows)

    def finish(self, redo: Redo) -> Any:
        """The clips of the batch that was started, as a DLPack object. `redo` is called for rows that DALI fails on.

        If the GPU has not enough memory, `redo` is called for all encoded rows, and DALI is given no more of them.

        Raises EnvironmentProblem if the memory is not enough for the batch even so, or if DALI fails on frames that are
        decoded already.
        """
        assert self._rows is not None, "start a batch first"
        rows, self._rows = self._rows, None
        tried = False
        while True:
            try:
                return self._pipeline.clips()
            except DALI_ERRORS as error:
                is_full, reason = says_out_of_memory(error), telling_line(error)
                if not any(row.sample.numbers for row in rows):
                    raise self._too_large(rows) if is_full else _failed(reason) from error
            # After the handler, whose error would keep the failed pipeline and its memory.
            self._restart()
            if is_full or tried:
                self._redo_encoded(rows, redo, "out of memory" if is_full else reason)
            else:
                self._redo_failing(rows, redo)
            tried = True
            self._feed(rows)

    def drop(self) -> None:
        """Forget the batch that was started."""
        if self._rows is not None:
            self._rows = None
            try:
                self._pipeline.clips()
            except DALI_ERRORS:  # the clips that DALI failed on are not needed any more
                self._restart()

    def _redo_encoded(self, rows: list[DaliInput], redo: Redo, reason: str) -> None:
        """Replace all encoded rows by rows that PyAV decodes, and decode no more by DALI, because of `reason`."""
        for number, row in enumerate(rows):
            if row.sample.numbers:
                rows[number] = redo(number, "")
        if self.decodes:  # not for the batches that were on their way meanwhile
            self.decodes = False
            device = self._stream.device
            _log.warning("%s: DALI can't decode a batch (%s): from now on PyAV decodes all", device, reason)

    def _redo_failing(self, rows: list[DaliInput], redo: Redo) -> None:
        """Try each encoded row alone, and replace those that DALI fails on by rows that PyAV decodes."""
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
            _log.warning("DALI decodes none of %d videos (%s): from now on PyAV decodes all", len(bad), reason)

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
                    f"{self._stream.device}: no memory left to start DALI; end other programs that use the GPU"
                ) from error
            on_gpu = "; to check whether this DALI fits the GPU and its driver, run: r3d-fast doctor" * (
                self._stream.device != "cpu"
            )
            raise EnvironmentProblem(f"DALI can't be started: {telling_line(error)}{on_gpu}") from error

    def _too_large(self, rows: Sequence[DaliInput]) -> EnvironmentProblem:
        """The error for a batch that does not fit into memory. It says how many clips do, found by trying."""

        def attempt(count: int) -> None:
            self._restart()
            self._feed(rows[:count])
            self._pipeline.clips()

        device = self._stream.device
        fits = fitting_size(len(rows), attempt, lambda error: isinstance(error, (*DALI_ERRORS, EnvironmentProblem)))
        remedy = f"{fits} fit: set loader.batch_size={fits}" if fits else "not even one fits: end other programs on it"
        return EnvironmentProblem(f"{device}: out of memory for a batch of {len(rows)} clips; {remedy}")


def _failed(reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"DALI failed: {reason}; to check the installation, run: r3d-fast doctor")


def says_out_of_memory(error: Exception) -> bool:
    """Whether DALI failed because it was out of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)

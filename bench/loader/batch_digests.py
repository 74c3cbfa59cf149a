"""Digests of batches, to prove that two trainings were given the same clips in the same order."""

from __future__ import annotations

import hashlib

import numpy as np

from pipelines.errors import EnvironmentProblem
from pipelines.loader import Batch


class BatchDigests:
    """The SHA-256 of the clips and labels of each batch that was added, by its place in the training."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, int], str] = {}

    def add(self, batch: Batch) -> None:
        """Take a batch, whose clips lie on the CPU."""
        digest = hashlib.sha256()
        for array in (np.from_dlpack(batch.clips), batch.labels, batch.is_real):
            digest.update(np.ascontiguousarray(array).data)
        self._digests[batch.epoch, batch.position] = digest.hexdigest()

    def require_equal(self, other: BatchDigests) -> int:
        """The number of batches that are in both. Raises EnvironmentProblem for one that differs."""
        both = self._digests.keys() & other._digests.keys()
        for epoch, position in sorted(both):
            if self._digests[epoch, position] != other._digests[epoch, position]:
                raise EnvironmentProblem(
                    f"epoch {epoch + 1}, the batch up to clip {position}: other clips in the two trainings; expected "
                    "the same"
                )
        return len(both)

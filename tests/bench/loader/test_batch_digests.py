from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.loader.batch_digests import BatchDigests
from pipelines.errors import EnvironmentProblem
from pipelines.loader import Batch

CLIPS = np.arange(2 * 3 * 2 * 4 * 4, dtype=np.float32).reshape(2, 3, 2, 4, 4)


def batch(position: int, clips: np.ndarray = CLIPS) -> Batch:
    return Batch(clips, np.array([1, 0]), np.array([5, 6]), np.ones(2, bool), 0, position, ())


def digests(*batches: Batch) -> BatchDigests:
    made = BatchDigests()
    for one in batches:
        made.add(one)
    return made


def test_equal_batches_are_counted_where_both_have_them() -> None:
    assert digests(batch(2), batch(4), batch(6)).require_equal(digests(batch(2), batch(4, CLIPS.copy()))) == 2


@pytest.mark.parametrize(
    "other",
    [batch(4, CLIPS[::-1]), replace(batch(4), labels=np.array([0, 1])), batch(4, CLIPS + 1)],
    ids=["order", "labels", "values"],
)
def test_another_batch_is_named(other: Batch) -> None:
    with pytest.raises(EnvironmentProblem, match="epoch 1, the batch up to clip 4: other clips in the two trainings"):
        digests(batch(2), batch(4)).require_equal(digests(batch(2), other))

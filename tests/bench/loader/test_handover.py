"""Batches are waited for wherever they lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.loader.handover import ClipsInfo, settle, to_host, wait_for


class OnGpu:
    """Clips that say that they lie on a GPU, and note which stream they were asked for."""

    def __init__(self, clips: Any) -> None:
        self.clips, self.streams = clips, []  # type: tuple[Any, list[Any]]

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: Any) -> Any:
        self.streams.append(stream)
        return self.clips.__dlpack__()

    def as_cpu(self) -> Any:
        return self.clips


def test_clips_are_waited_for_where_they_lie_and_not_copied() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert wait_for(array) == ClipsInfo(False, (2, 3, 4), "float32")
    assert wait_for(array.astype(np.float16)).dtype == "float16"
    gpu = OnGpu(array)
    assert wait_for(gpu) == ClipsInfo(True, (2, 3, 4), "float32")
    assert gpu.streams == [None]  # by the standard of DLPack: safe for any stream, so DALI waits on the host
    assert np.array_equal(to_host(gpu), array)


@pytest.mark.parametrize(("known_after", "made"), [(0, 0), (17, 17), (1000, 60)])
def test_batches_are_made_until_it_is_known_who_decodes(known_after: int, made: int) -> None:
    loader = SimpleNamespace(routing=None if known_after else "pyav")
    batches: list[int] = []

    def make_one() -> None:
        batches.append(1)
        loader.routing = "hybrid" if len(batches) >= known_after else None

    settle(loader, make_one)  # type: ignore[arg-type]
    assert len(batches) == made

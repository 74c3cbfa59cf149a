"""What becomes of a batch on its way to the model, and for how long it is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fed import a_batch

from pipelines.loader import Batch
from r3d_fast.backend import feed as feeding_module
from r3d_fast.backend import paddle as compat
from r3d_fast.backend.feed import feed, feeding
from r3d_fast.backend.paddle import from_dlpack


class _Event:
    """An event that passes when told to."""

    made: list[_Event]

    def __init__(self) -> None:
        self.passed, self.waited = False, False
        self.made.append(self)

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = self.waited = True


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[_Event]:
    """Events on a stream that we move; tensors stay on the CPU."""
    made: list[_Event] = []
    monkeypatch.setattr(_Event, "made", made, raising=False)
    monkeypatch.setattr(feeding_module, "record_event", _Event)
    monkeypatch.setattr(feeding_module, "feed", lambda batch, device: feed(batch, "cpu"))
    return made


def test_a_batch_is_held_until_the_gpu_is_done_with_it_but_never_more_than_two(events: list[_Event]) -> None:
    import gc
    import weakref

    class Clips(np.ndarray):  # type: ignore[type-arg]
        pass

    alive: list[weakref.ref[Any]] = []

    def batches() -> Iterator[Batch]:
        for number in range(5):
            batch = a_batch(1, number)
            clips = batch.clips.view(Clips)
            alive.append(weakref.ref(clips))
            yield Batch(clips, batch.labels, batch.video_ids, batch.is_real, 0, 0, ())

    def held() -> list[int]:
        gc.collect()
        return [number for number, clips in enumerate(alive) if clips() is not None]

    steps = feeding(batches(), "gpu")
    next(steps)
    assert events == []  # the first step has not been taken yet
    next(steps)
    next(steps)
    assert held() == [0, 1, 2]  # two that the GPU may still read, and the one in hand
    next(steps)
    assert held() == [1, 2, 3]
    assert [event.waited for event in events] == [True, False, False]
    events[1].passed = events[2].passed = True
    next(steps)
    assert held() == [3, 4]
    assert [event.waited for event in events][3] is False
    assert next(steps, None) is None
    assert events[-1].waited  # what is left is waited for at the end


def test_an_epoch_that_is_left_early_waits_for_the_gpu(events: list[_Event]) -> None:
    steps = feeding(iter([a_batch(1), a_batch(1)]), "gpu")
    next(steps)
    steps.close()
    assert [event.waited for event in events] == [True]


def test_on_the_cpu_nothing_is_held_and_no_event_is_recorded(events: list[_Event]) -> None:
    assert [fed.clips.shape[0] for _, fed in feeding([a_batch(1), a_batch(2)], "cpu")] == [1, 2]
    assert events == []


class _Exporter:
    """A DLPack object on a device of our choice that notes which stream it is told; the memory is the host's."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.array = np.arange(6, dtype=np.float32)
        self.told: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, stream: Any = "nothing") -> Any:
        self.told.append(stream)
        return self.array.__dlpack__()


def test_a_gpus_exporter_is_told_paddles_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "stream_handle", lambda: 4711)
    host, gpu = _Exporter(1), _Exporter(2)
    for exporter in (host, gpu):
        np.testing.assert_array_equal(from_dlpack(exporter).numpy(), exporter.array)
    assert (host.told, gpu.told) == (["nothing"], [4711])


def test_labels_and_weights_are_those_of_the_batch() -> None:
    batch = a_batch(4)
    batch.is_real[1] = False
    fed = feed(batch, "cpu")
    np.testing.assert_array_equal(fed.labels.numpy(), batch.labels)
    np.testing.assert_allclose(fed.weights.numpy(), [1 / 3, 0, 1 / 3, 1 / 3])

from __future__ import annotations

import inspect
from typing import Any

import pytest

from pipelines.machine import gpu_wait
from r3d_fast.backend.paddle import import_paddle, record_event


@pytest.mark.parametrize(("chosen", "blocking"), [({0: "sleep"}, True), ({0: "spin"}, False), ({1: "sleep"}, False)])
def test_a_thread_waits_for_an_event_as_was_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[int, Any], blocking: bool
) -> None:
    """Without the flag of its own, which is `blocking` in Paddle, a thread spins whatever the GPU's context says."""
    device = import_paddle().device
    signature = inspect.signature(device.Event)
    made: list[Any] = []

    class Event:
        def __init__(self, *given: Any, **named: Any) -> None:
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            made.append(bound.arguments["blocking"])

        def record(self) -> None:
            made.append("recorded")

    monkeypatch.setattr(device, "Event", Event)
    monkeypatch.setattr(gpu_wait, "_chosen", chosen)
    record_event()
    assert made == [blocking, "recorded"]

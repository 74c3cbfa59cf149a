"""Sends numbers to another program by a thread, so that the training never waits for a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread

from r3d_fast.runs.remote_runs import RemoteRun

_PATIENCE = 30.0  # seconds that the end of a run waits for what has not been sent


class Sender:
    """Adds numbers to a remote run in the order in which they come. `add` returns at once.

    After an error nothing more is sent, and `failed` is called with it, once, by the thread.
    """

    def __init__(self, opened: Callable[[], RemoteRun], failed: Callable[[Exception], None]) -> None:
        """`opened` gives the run, and may take its time; the thread calls it."""
        self._opened, self._failed = opened, failed
        self._queue: SimpleQueue[tuple[Mapping[str, float], int] | None] = SimpleQueue()
        # A daemon: Python would wait for others at its end, for as long as the network hangs.
        self._thread = Thread(target=self._send, daemon=True)
        self._thread.start()

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Send `values` at `step` when it is their turn."""
        if self._thread.is_alive():
            self._queue.put((values, step))

    def close(self) -> None:
        """Wait until all is sent, but at most half a minute. Raises TimeoutError if it takes longer."""
        self._queue.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"not everything could be sent within {_PATIENCE:.0f} s")

    def _send(self) -> None:
        try:
            run = self._opened()
            while (item := self._queue.get()) is not None:
                run.add(*item)
            run.close()
        except Exception as error:  # an error of another program must not end the training
            self._failed(error)

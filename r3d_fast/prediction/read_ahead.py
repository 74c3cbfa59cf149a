"""An iterator whose items a thread prepares ahead of time."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
_PATIENCE = 0.1  # seconds between checks whether the iterator was closed
_LAST_ITEM_SECONDS = 3.0  # a thread that takes longer may wait for input that never comes


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The same items as `items`, prepared by a thread up to `depth` items ahead.

    An error that `items` raises is raised here, after the items before it. Closing this iterator ends the thread after
    the item that it is working on.
    """
    made: Queue[tuple[bool, Item | BaseException | None]] = Queue(depth)
    stop = Event()

    def put(entry: tuple[bool, Item | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                made.put(entry, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
        except BaseException as error:  # raised again in the caller's thread
            put((False, error))
        else:
            put((False, None))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value  # type: ignore[misc]
            elif value is None:
                return
            else:
                raise value  # type: ignore[misc]
    finally:
        stop.set()
        while True:
            try:
                made.get_nowait()
            except Empty:
                break
        thread.join(_LAST_ITEM_SECONDS)

"""An iterator that a thread works ahead of."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
_PATIENCE = 0.1  # seconds between looks at whether anybody still wants more
_LAST_ITEM_SECONDS = 3.0  # a thread that is not done by then waits for something that may never come


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """What `items` gives, made by a thread up to `depth` items ahead; what it raises is raised here, in its place.

    Closing this ends the thread after the item at which it is.
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
        except BaseException as error:  # it is the caller's to deal with
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

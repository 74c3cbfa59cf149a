"""The files that predictions are added to, of which one may be stdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from pipelines.output.descriptors import is_stdout

Add = Callable[[Any], object]
Writer = Callable[[Path], AbstractContextManager[Add]]


def opened_reports(stack: ExitStack, writers: Sequence[tuple[Path | None, Writer]], *, others: bool) -> list[Add]:
    """What adds an item to each file that is named; the files are complete when `stack` is closed.

    The reader of stdout may go before the end, or stdout may be full. Then that ends the command, as there is nobody to
    work for, unless there are other files, of these or, if `others`, of another kind: these are completed first.
    Raises UsageError where a file can't be written.
    """
    named = [(path, writer) for path, writer in writers if path is not None]
    named.sort(key=lambda pair: not is_stdout(pair[0]))  # what is opened first is closed last
    adds = [stack.enter_context(writer(path)) for path, writer in named]
    if not others and len(adds) < 2:
        return adds
    # What a full stdout has refused is tried again where it is closed, which then is the error of the command.
    return [
        _lasting(add, OSError if is_stdout(path) else BrokenPipeError)
        for add, (path, _) in zip(adds, named, strict=True)
    ]


def _lasting(add: Add, error: type[OSError]) -> Add:
    def add_or_drop(item: Any) -> None:
        with suppress(error):
            add(item)

    return add_or_drop

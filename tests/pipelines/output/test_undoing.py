from __future__ import annotations

import pytest

from pipelines.output import undoing
from pipelines.output.undoing import undo_all, undone


def test_what_is_open_is_undone_the_last_first_and_an_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoing, "_undoings", [])  # else that of the test process would be undone
    done: list[str] = []

    def fail() -> None:
        raise ValueError("x")

    with undone(lambda: done.append("never")):
        pass
    with undone(lambda: done.append("first")), undone(fail), undone(lambda: done.append("last")):
        undo_all()
    assert done == ["last", "first"]
    undo_all()
    assert done == ["last", "first"]
    assert undoing._undoings == []

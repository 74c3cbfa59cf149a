"""Progress in terminals of several widths and in a file: count and time are never cut, and silence is never long."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal import in_terminal
from waiting import wait_until

from r3d_fast.progress import Progress

TEXT = "epoch 12/25  loss 1.234  top1 40.0 %  77.4 clips/s  data 34 %"
STEPS = f"""
from r3d_fast.progress import Progress
with Progress("train", 1250, 100, left=lambda: 4321.0) as bar:
    bar.step({TEXT!r}, done=123)
"""


def bar_of(columns: int, program: str = STEPS) -> str:
    with in_terminal([sys.executable, "-c", program], columns) as terminal:
        *_, last = terminal.frames()
    assert len(last) == 1, last  # one line, whatever the width
    return last[0]


@pytest.mark.parametrize(
    ("columns", "fields"),
    [(130, 5), (80, 3), (60, 1), (44, 0), (30, 0)],
)
def test_text_gives_way_to_the_count_and_the_time(columns: int, fields: int) -> None:
    line = bar_of(columns)
    assert line.startswith("train 123/1250  ")
    assert re.search(r"  ETA 1:1[12]:\d\d$", line), line
    shown = TEXT.split("  ")[:fields]
    assert all(field in line for field in shown), line
    assert not any(field in line for field in TEXT.split("  ")[fields:]), line
    assert ("\u2501" in line) == (columns > 30)


def test_a_long_title_is_shortened_in_its_middle() -> None:
    title = "decoding " + "a very long folder/" * 8 + "video.avi"
    program = STEPS.replace("'train'", repr(title)).replace('"train"', repr(title))
    line = bar_of(80, program)
    assert line.startswith("decoding a very long")
    assert "\u2026" in line
    assert re.search(r"video\.avi 123/1250  ETA 1:1[12]:\d\d$", line), line


def test_a_step_that_takes_long_says_so_in_a_terminal() -> None:
    program = (
        "from r3d_fast.progress import Progress\n"
        "with Progress('train', 4) as bar:\n    bar.step('epoch 1/1  loss 2.0')\n    bar._event -= 3600\n"
    )
    assert re.search(r"epoch 1/1  busy for 36\d\d s  loss 2\.0", bar_of(80, program))


@contextmanager
def lines_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What gives the lines so far on a stderr that is no terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    yield lambda: stream.getvalue().splitlines()


def test_lines_come_by_steps_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with lines_of(monkeypatch) as lines, Progress("train", 5, every=2) as progress:
        for number in range(5):
            progress.step(f"loss {number}")
        progress.say("a line")
    assert [re.sub(r"ETA .*", "ETA", line) for line in lines()] == [
        "train 2/5  loss 1  ETA", "train 4/5  loss 3  ETA", "train 5/5  loss 4  ETA", "a line",
    ]  # fmt: skip
    assert lines()[2].endswith("ETA 0:00")


def test_lines_come_by_time_too_also_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.progress._SILENT_SECONDS", 0.1)
    with lines_of(monkeypatch) as lines, Progress("train", 1000, every=100, seconds=0.2) as progress:
        progress.step("loss 1.0")
        wait_until(lambda: sum("busy for" in line for line in lines()) >= 2, "two lines within a step")
        progress.note("evaluating 1/9")
        wait_until(lambda: lines()[-1].startswith("train 1/1000  evaluating 1/9  "), "a line with the note")


def test_no_line_comes_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with lines_of(monkeypatch) as lines, Progress("train", 1000, every=100, seconds=3600.0) as progress:
        for _ in range(99):
            progress.step("loss 1.0")
            progress.note("evaluating")
        assert lines() == []
        progress._told -= 3600
        progress.note("evaluating 2")
        progress.note("evaluating 3")
    assert [line.split("  ")[:2] for line in lines()] == [["train 99/1000", "evaluating 2"]]


def test_the_time_left_counts_down_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([None, 100.0, 100.0])
    with lines_of(monkeypatch) as lines, Progress("train", 9, left=lambda: next(left)) as progress:
        progress._tell()
        progress.step("a")
        progress._event -= 60.0  # a minute ago
        progress._tell()
    assert [line.split("ETA ")[1] for line in lines()] == ["-:--", "1:40", "0:40"]


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", STEPS], stderr=file, check=True)
    assert log.read_text() == f"train 123/1250  {TEXT}  ETA 1:12:01\n"

"""Reports with made-up figures, for the tests of what bench prints, draws and compares."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from bench.measuring.machine import Machine
from bench.reporting.figures import Figures, MeasuredRun
from bench.reporting.results import LOADER_KIND, ThroughputReport

MACHINE = Machine("Some CPU", 4, 15.6, None, "Linux 6.1, x86_64", "3.11.7", {"av": "14.0"})
STAGES = {"hand-over": 0.125, "read": 0.25, "decode": 5.0}
PEER = (50.0, 60.0, 40.0, 55.0, 45.0)


def run(ours: tuple[float, ...] = (100.0, 120.0, 110.0, 99.0, 101.0), sampling: str = "segments") -> MeasuredRun:
    return MeasuredRun(
        sampling,
        2,
        (
            Figures("r3d-fast", ours, 16, (0.01, 0.03, 0.02, 0.02, 0.02), 41234.0, STAGES, "identical"),
            Figures("decord", PEER, 16, (0.05,) * 5, frames="3 of 96 videos differ"),
            Figures("decode only (ceiling)", (200.0,) * 5, 16),
        ),
    )


def report(*runs: MeasuredRun, **fields: Any) -> ThroughputReport:
    whole = ThroughputReport(
        1, LOADER_KIND, "bench loader throughput", "abc1234", MACHINE, {"batch_size": 8}, runs or (run(),)
    )
    return replace(whole, **fields)


FULL = report(
    run(),
    run((300.0, 310.0, 290.0, 305.0, 295.0), "consecutive"),
    replace(run(), workers=1),
    missing={"torchcodec": "pip install torchcodec"},
    excluded=({"path": "a.avi", "reason": "empty"}, {"path": "b|c.avi", "reason": "truncated"}),
    extra={"first batch seconds": 1.5, "index": {"files": 96}},
)


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the Markdown tables of `text` that start with the cell `first`."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]
    return [row for row in rows if row[0] == first]

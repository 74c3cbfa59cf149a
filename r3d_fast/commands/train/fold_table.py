"""What `r3d-fast train --folds` prints in the end: a row for each fold, and their mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r3d_fast.console import quoted
from r3d_fast.runs.fold_results import FOLDS, FoldResult, spread_lines


def print_folds(results: Sequence[FoldResult], run: Path, say: Callable[[str], None]) -> None:
    """Pass the lines of a table of `results` to `say`; `run` is the folder of all folds."""
    say("fold  trained on  tested  last top1  best top1")
    for result in results:
        last = "" if result.last_top1 is None else f"{100 * result.last_top1:.2f} %"
        say(f"{result.fold:4}  {result.trained:10}  {result.tested:6}  {last:>9}  {100 * result.best_top1:7.2f} %")
    for line in spread_lines(results):
        say(line)
    say(f"figures:  {quoted(run / FOLDS)}")
    say(f"look:     {quoted('r3d-fast', 'report', *(result.run for result in results))}")

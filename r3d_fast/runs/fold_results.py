"""The folder of all folds of a data set: where each lies, and what came out, with mean and spread, in folds.json.

Also how a run goes on, whether it is one of folds or not, and what helps where its folder can't be written.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError
from pipelines.input.regular_files import read_regular
from pipelines.output.files import write_file
from r3d_fast.console import quoted
from r3d_fast.errors import mending

FOLDS = "folds.json"  # in the folder of all folds: how many there are, and what came out
_MOST_BYTES = 1 << 20  # of folds.json
_FOLD = "fold-"  # before the number of a fold, in the name of its folder
_TITLES = {"last_top1": "last top1", "best_top1": "best top1"}


@dataclass(frozen=True)
class FoldResult:
    """What came out of a fold: its run, how many videos it trained on and tested, steps, and top1 (fractions).

    `last_top1` is that of the last evaluation, `best_top1` that of the best, which the tested videos themselves chose.
    """

    fold: int
    run: str
    trained: int
    tested: int
    steps: int
    last_top1: float | None
    best_top1: float


@dataclass(frozen=True)
class Folds:
    """The folds in the folder `run`: `count` of them, and the `results` of those that have ended."""

    run: Path
    count: int
    results: list[FoldResult]

    @property
    def begun(self) -> dict[int, Path]:
        """The folder of each fold that has begun, by its number."""
        folders = {fold: fold_folder(self.run, fold) for fold in range(1, self.count + 1)}
        return {fold: folder for fold, folder in folders.items() if (folder / "config.yaml").is_file()}

    @property
    def have_ended(self) -> bool:
        """Whether every fold has a result."""
        return len(self.results) == self.count

    def outcome(self) -> str:
        """How many folds have ended, and the mean and spread of their top1, in one line."""
        ended = f"all {self.count}" if self.have_ended else f"{len(self.results)} of {self.count}"
        figures_of_ended = "; ".join(spread_lines(self.results))
        return f"{ended} folds have ended" + (f": {figures_of_ended}" if figures_of_ended else "")


def fold_folder(run: Path, fold: int) -> Path:
    """The folder in which number `fold` (from 1) of the folds in the folder `run` is trained."""
    return run / f"{_FOLD}{fold}"


def is_fold_folder(folder: Path) -> bool:
    """Whether `folder` is called like that of a fold."""
    return folder.name.startswith(_FOLD)


def run_to_resume(run: Path) -> Path:
    """The folder that goes on where the run in the folder `run` is stopped: that of all folds if it is one of them."""
    return run.parent if is_fold_folder(run) and (run.parent / FOLDS).is_file() else run


def resume_command(run: Path) -> str:
    """The command that goes on with the run in the folder `run`, or with all folds if it is one of them."""
    return quoted("r3d-fast", "train", "--resume", run_to_resume(run))


def has_begun(run: Path) -> bool:
    """Whether a run, or one of folds, was begun in the folder `run`."""
    return (run / "config.yaml").is_file()


def start_hint(run: Path) -> Callable[[OSError | None], str]:
    """What helps where a run can't start because of its folder `run`, by the error of the system if that is known.

    A new run may lie elsewhere; one that has begun can only go on where it is.
    """
    begun = has_begun(run)

    def hint(error: OSError | None = None) -> str:
        mend = "" if error is None else mending(error)
        if begun:
            return f"{mend or 'mend that'}, then run the same again"
        return f"{mend}, or choose another --run" if mend else "choose another --run"

    return hint


def resume_hint(run: Path) -> Callable[[OSError], str]:
    """What helps where the run in `run` can't go on because the system refuses a file."""
    return lambda error: f"{mending(error) or 'mend that'}, then continue with: {resume_command(run)}"


def stored_folds(run: Path) -> int | None:
    """How many folds the folder `run` was begun with; None if it has no folds.

    Raises UsageError if its folds.json is damaged.
    """
    found = read_folds(run)
    return None if found is None else found.count


def stored_results(run: Path) -> list[FoldResult]:
    """The results in folds.json of the folder `run`; none if it has no folds. Raises UsageError if it is damaged."""
    found = read_folds(run)
    return [] if found is None else found.results


def read_folds(run: Path) -> Folds | None:
    """What folds.json of the folder `run` says; None if it has no folds. Raises UsageError if it is damaged."""
    path = run / FOLDS
    try:
        values = json.loads(read_regular(path, _MOST_BYTES))
        return Folds(run, int(values["folds"]), [FoldResult(**result) for result in values["results"]])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: can't be read ({error}); delete it to begin with the folds anew") from error


def spread(values: Sequence[float]) -> dict[str, float]:
    """The mean, the sample standard deviation (0 of one value), the lowest and the highest of `values`."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation, "low": min(values), "high": max(values)}


def figures(results: Sequence[FoldResult]) -> dict[str, dict[str, float]]:
    """The mean and spread of the last and the best top1 (fractions) over the folds that have one."""
    values = {
        "last_top1": [result.last_top1 for result in results if result.last_top1 is not None],
        "best_top1": [result.best_top1 for result in results],
    }
    return {name: spread(those) for name, those in values.items() if those}


def spread_lines(results: Sequence[FoldResult]) -> list[str]:
    """The mean and spread of the last and the best top1, as lines; none without results."""
    lines = []
    for name, values in figures(results).items():
        mean, deviation, low, high = (100 * values[key] for key in ("mean", "deviation", "low", "high"))
        lines.append(f"{_TITLES[name]}: mean {mean:.2f} %, deviation {deviation:.2f} ({low:.2f} to {high:.2f})")
    return lines


def write_folds(run: Path, count: int, results: Mapping[int, FoldResult]) -> None:
    """Write the `results` so far, by the number of the fold, of `count` folds to folds.json in the folder `run`.

    Raises UsageError if it can't be written.
    """
    known = [results[fold] for fold in sorted(results)]
    values: dict[str, Any] = {"folds": count, "results": [asdict(result) for result in known], **figures(known)}
    write_file(run / FOLDS, json.dumps(values, indent=1).encode(), resume_hint(run), follow=False)

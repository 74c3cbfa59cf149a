"""Trains a model for each fold of a data set on the videos of the other folds, and tests it on those of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipelines.errors import UsageError
from pipelines.index.folds import Fold
from pipelines.index.video_index import VideoIndex
from pipelines.output.files import write_file
from r3d_fast.config.config import Config, dump_config
from r3d_fast.console import counted, tell
from r3d_fast.loaders import open_index
from r3d_fast.runs.fold_results import FoldResult, fold_folder, resume_hint, stored_folds, stored_results, write_folds
from r3d_fast.runs.folder import RunFolder
from r3d_fast.training.train import TrainResult, check_start


class TrainFold(Protocol):
    """Trains one fold, as `r3d_fast.training.train.train` does."""

    def __call__(self, config: Config, *, run: Path, on_begin: Callable[[], None]) -> TrainResult:
        """The result of training as `config` says in the folder `run`; `on_begin` is called before that is written."""


def train_folds(
    config: Config, run: Path, count: int, train_fold: TrainFold, *, resume: bool = False
) -> list[FoldResult]:
    """What came out of each of `count` folds of the videos of `config`; fold k is trained in the folder `run`/fold-k.

    `train_fold` trains one fold, or goes on with it where `resume`; one that has ended gives its result at once. After
    each fold, folds.json in `run` has the results so far, with their mean and spread. Nothing is written before the
    first fold begins. Raises UsageError if `run` holds anything else, is in use, or was begun otherwise, DataError if
    there are fewer groups of videos than folds, and what `train_fold` raises.
    """
    before = stored_folds(run)
    if before not in (None, count):
        raise UsageError(f"{run}: was begun with {before} folds, not {count}; give --folds {before}, or another --run")
    index = open_index(config.data)
    index.columns(str(Fold(1, count)))  # raises DataError where there can't be so many
    with RunFolder(run, of_folds=True):
        parts = [_Part(config, run, Fold(part, count), index) for part in range(1, count + 1)]
        for part in parts:
            check_start(part.config, part.folder, resume, index)
        for warning in _warnings(index, count):
            tell(f"warning: {warning}")
        results = {result.fold: result for result in stored_results(run)} if resume else {}

        def begin() -> None:
            write_folds(run, count, results)  # first: it marks the folder as one of folds
            write_file(run / "config.yaml", dump_config(config).encode(), resume_hint(run), follow=False)

        for part in parts:
            results[part.fold.part] = part.train(train_fold, begin)
            write_folds(run, count, results)
    return [results[part.fold.part] for part in parts]


class _Part:
    """One fold of a run: its folder, and its config, which trains on the other folds and tests on this one."""

    def __init__(self, config: Config, run: Path, fold: Fold, index: VideoIndex) -> None:
        rest = fold._replace(is_rest=True)
        splits = {"train_split": str(rest), "eval_split": str(fold)}
        self.fold, self.folder = fold, fold_folder(run, fold.part)
        self.config = config.model_copy(update={"data": config.data.model_copy(update=splits)})
        self._trained, self._tested = len(index.columns(str(rest))), len(index.columns(str(fold)))

    def train(self, train_fold: TrainFold, begin: Callable[[], None]) -> FoldResult:
        """What came out of training this fold by `train_fold`."""
        tell(
            f"fold {self.fold.part} of {self.fold.parts}: training on {counted(self._trained, 'video')}, "
            f"testing on {self._tested}, in {self.folder}"
        )
        done = train_fold(self.config, run=self.folder, on_begin=begin)
        return FoldResult(
            self.fold.part, str(self.folder), self._trained, self._tested, done.steps, done.last_top1, done.best_top1
        )


def _warnings(index: VideoIndex, count: int) -> list[str]:
    """Which classes can't be in each fold, since they have fewer groups than there are folds."""
    groups, names = index.groups(), index.names()
    labels = index.columns().label.tolist()
    of_class: dict[int, set[str]] = {}
    for part in range(1, count + 1):
        for number in index.columns(str(Fold(part, count))).video_id.tolist():
            of_class.setdefault(labels[number], set()).add(groups[number] or names[number])
    few = Counter({index.classes[label]: len(those) for label, those in of_class.items() if len(those) < count})
    if not few:
        return []
    shown = ", ".join(f"{name} ({number})" for name, number in few.most_common(10)) + ", ..." * (len(few) > 10)
    classes = counted(len(few), "class has", "classes have")
    return [f"{classes} fewer videos or groups than {count}, so some folds don't test them: {shown}"]

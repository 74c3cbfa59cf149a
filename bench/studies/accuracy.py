"""`bench studies accuracy`: what a training reaches with several seeds, and whether something else differs from it.

The anchor experiment is the reference recipe on clips of 8 frames of 56 px, in batches of 8 at an eighth of its rate.
Something else is another value of a setting (`--vary`), or the same training in PyTorch (`--torch`). All are trained
with the same seeds, seed by seed in turns; ours by `r3d_fast.training.train`, whose run folder has the figures.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from bench.loader.batch_digests import BatchDigests
from bench.measuring.turns import Say
from bench.reporting.accuracy_tables import ACCURACY_KIND
from bench.reporting.results import StudyReport, study_report
from bench.studies.learning_curve import (
    FIGURES,
    Curve,
    chance_of_telling_apart,
    compared,
    learning_curve,
    read_records,
    spread_of,
)
from bench.videos.opened_index import MOTIONS, opened_index
from pipelines.errors import EnvironmentProblem, ExitCode, UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.output.folders import make_folder
from pipelines.output.temporary import temporary_folder
from r3d_fast.config.config import Config, load_config
from r3d_fast.config.sections import ScheduleSpec
from r3d_fast.console import tell
from r3d_fast.errors import DivergedError
from r3d_fast.training.train import train

Result = TypeVar("Result")
OURS = "r3d-fast"
ANCHOR = "ucf101_r3d18"
# What docs/training.md says of smaller clips and batches: the batch is an eighth of the recipe's, and so is the rate.
_SMALLER = ("clip.num_frames=8", "augment.size_px=56", "loader.batch_size=8", "optimizer.lr=0.00125")
_NOT_MIRRORED = ("augment.mirror=0",)  # mirrored, the motion `left` is `right`
_FOREVER = 1_000_000  # epochs, where the time is what ends a run
_TOLERANCE = 1e-3  # of the loss of the first step, in PyTorch and here: float32 sums in another order


@dataclass(frozen=True)
class AccuracySettings:
    """What is trained: `source` is a config (None: the anchor), `vary` is KEY=V1,V2, `runs` keeps the run folders."""

    source: str | None
    overrides: tuple[str, ...]
    data: Path | None
    seeds: int
    vary: str | None = None
    minutes: float | None = None
    torch: bool = False
    runs: Path | None = None

    def config(self, *more: str) -> Config:
        """The config with these settings and the overrides `more`. Raises ConfigError for one that can't be used."""
        anchor = (*_SMALLER, *(_NOT_MIRRORED if self.data is None else ())) if self.source is None else ()
        timed: tuple[str, ...] = ()
        if self.minutes is not None:
            # With a constant rate a run may end at any moment: none is in the middle of its schedule then.
            constant = (f"schedule.{key}={_yaml(spec.default)}" for key, spec in ScheduleSpec.model_fields.items())
            timed = (*constant, f"train.epochs={_FOREVER}", f"train.max_minutes={self.minutes}")
        return load_config(self.source or ANCHOR, [*anchor, *timed, *self.overrides, *more])


def measure_accuracy(
    settings: AccuracySettings, command: str, say: Say, keep: Callable[[StudyReport], None] = lambda _: None
) -> StudyReport:
    """The report of all trainings; `keep` is given the report so far after each seed.

    Raises ConfigError for a setting that can't be used, UsageError for a bad `vary`, DataError for videos that can't be
    read, EnvironmentProblem where PyTorch is missing: all before anything is trained. EnvironmentProblem too where
    PyTorch did not get the clips that r3d-fast was trained on, or has another loss in the first step.
    """
    variants = variants_of(settings.vary)
    configs = [settings.config(*variant.overrides) for variant in variants]
    if settings.torch:
        _require_torch(configs)
    with opened_index(settings.data, say) as index, _folder(settings.runs) as runs:
        located = (f"data.root={index.root.absolute()}", f"data.index={index.path.absolute()}")
        about = _described(settings, index, configs[0])
        trained = _Trained()
        report = study_report(ACCURACY_KIND, command, about)
        for seed in range(settings.seeds):
            for variant in variants:
                own = (*variant.overrides, *located, f"train.seed={seed}", f"loader.seed={seed}")
                config = settings.config(*own)
                if settings.minutes is not None:
                    config = _evaluated_alike(config, configs)
                run = runs / f"{variant.folder}seed{seed}"
                say(f"seed {seed}: {variant.named(OURS)}")
                digests = _in_process(_train, config, run, settings.torch)
                ours = read_records(run)
                trained.add(variant.named(OURS), seed, ours)
                if settings.torch:
                    say(f"seed {seed}: {variant.named('PyTorch')}")
                    theirs, others = _in_process(_train_in_torch, config)
                    trained.add_torch(variant, seed, ours, theirs)
                    trained.compared_batches += digests.require_equal(others)
            report = study_report(ACCURACY_KIND, command, {**about, **trained.figures()})
            keep(report)
    return report


@dataclass(frozen=True)
class Variant:
    """A value of the setting that is varied; the only variant, without any, where nothing is varied."""

    overrides: tuple[str, ...] = ()

    def named(self, side: str) -> str:
        """The name of this variant, trained by `side`."""
        if not self.overrides:
            return side
        return self.overrides[0] if side == OURS else f"{side}, {self.overrides[0]}"

    @property
    def folder(self) -> str:
        """What the names of its run folders begin with."""
        return "".join(f"{re.sub(r'[^A-Za-z0-9._=]+', '-', text)}-" for text in self.overrides)


def variants_of(vary: str | None) -> list[Variant]:
    """The variants of `--vary KEY=V1,V2`. Raises UsageError for anything else."""
    if vary is None:
        return [Variant()]
    key, _, text = vary.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[]*\])", text)]
    if len(values) < 2 or "" in values or len(set(values)) < len(values):
        raise UsageError(f"--vary {vary}: expected SECTION.KEY=V1,V2 with two or more values, each once")
    if key in ("train.seed", "loader.seed") or key.startswith("data."):
        raise UsageError(f"--vary {vary}: {key} is the same for all; expected another setting (--seeds, --data)")
    return [Variant((f"{key}={value}",)) for value in values]


@dataclass
class _Trained:
    """The curves of each contender, by its name and the seed, and what proves that PyTorch was given the same."""

    curves: dict[str, dict[int, Curve]] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)  # a contender: the one that it is compared with
    compared_batches: int = 0
    first_loss: float = 0.0  # largest difference, as a share

    def add(self, name: str, seed: int, records: list[dict[str, Any]]) -> None:
        """Take the records of a training. Raises DivergedError where it ended without numbers."""
        curve = learning_curve(records)
        if any(curve[-1][figure] is None for figure in FIGURES):
            raise DivergedError(f"{name}, seed {seed}: the loss was no number; lower optimizer.lr")
        self.curves.setdefault(name, {})[seed] = curve

    def add_torch(
        self, variant: Variant, seed: int, ours: list[dict[str, Any]], theirs: dict[str, list[dict[str, Any]]]
    ) -> None:
        """Take the records of PyTorch, by the side's name. Raises EnvironmentProblem for another first loss."""
        for side, records in theirs.items():
            self.add(variant.named(side), seed, records)
            self.pairs[variant.named(side)] = variant.named(OURS)
            mine, other = ours[0]["loss"], records[0]["loss"]
            self.first_loss = max(self.first_loss, abs(mine - other) / mine)
        if not self.first_loss < _TOLERANCE:
            raise EnvironmentProblem(f"the first loss is {mine} here and {other} in PyTorch; expected the same")

    def figures(self) -> dict[str, Any]:
        """JSON values: of each contender its curves and the spread of its last figures, then the comparisons."""
        names = list(self.curves)
        base = names[0]
        pairs = self.pairs or dict.fromkeys(names[1:], base)
        last = {
            name: {figure: [curve[-1][figure] for curve in curves.values()] for figure in FIGURES}
            for name, curves in self.curves.items()
        }
        comparisons = [
            {"contender": name, "beside": other, "figure": figure, **compared(last[other][figure], last[name][figure])}
            for name, other in pairs.items()
            for figure in FIGURES
        ]
        same = {"batches equal": self.compared_batches, "first loss, largest difference as a share": self.first_loss}
        return {
            **({"the same in PyTorch": same} if self.pairs else {}),
            "contenders": {
                name: {
                    "last": {figure: spread_of(values) for figure, values in last[name].items()},
                    "curves": {str(seed): curve for seed, curve in curves.items()},
                }
                for name, curves in self.curves.items()
            },
            "comparisons": comparisons,
            "told apart by chance": chance_of_telling_apart(len(self.curves[base])),
        }


def _in_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What `function` returns in a process of its own, so that a training leaves no memory behind for the next.

    Raises what it raises, and EnvironmentProblem where the process is killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        try:
            return pool.submit(_unless_alone, function, *arguments).result()
        except BrokenProcessPool as error:
            raise EnvironmentProblem("a training was killed; expected more memory, or a smaller model.width") from error


def _end_with_parent() -> None:
    """End this process, by the signal after which a training leaves a checkpoint, when the study has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _unless_alone(function: Callable[..., Result], *arguments: object) -> Result:
    """What `function` returns. Where the study was killed meanwhile nobody waits for it, and this process ends."""
    try:
        return function(*arguments)
    finally:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(ExitCode.STOPPED)


def _train(config: Config, run: Path, digest: bool) -> BatchDigests:
    """Train in the folder `run`, or go on there; with `digest` what the batches were."""
    digests = BatchDigests()
    train(config, run=run, resume=True, on_batch=digests.add if digest else None)
    return digests


def _train_in_torch(config: Config) -> tuple[dict[str, list[dict[str, Any]]], BatchDigests]:
    """(records by side, digests of the batches) of a training in PyTorch."""
    from bench.studies.torch_training import train_in_torch

    digests = BatchDigests()
    return train_in_torch(config, digests.add, tell), digests


def _described(settings: AccuracySettings, index: VideoIndex, config: Config) -> dict[str, Any]:
    """What is trained and on what, as JSON values."""
    values = config.model_dump(mode="json", exclude={"data"})
    videos = {split: len(index.columns(split)) for split in (config.data.train_split, config.data.eval_split)}
    return {
        "data": MOTIONS if settings.data is None else settings.data.name,
        "videos": videos,
        "classes": len(index.classes),
        "config": settings.source or "anchor",
        "vary": settings.vary,
        "minutes": settings.minutes,
        "seeds": settings.seeds,
        "settings": values,
    }


def _evaluated_alike(config: Config, configs: list[Config]) -> Config:
    """`config` with evaluations as many steps apart as in the others, whose epochs have other lengths."""
    longest = max(other.loader.repeats for other in configs)
    every = max(1, round(config.train.eval_every_epochs * longest / config.loader.repeats))
    return config.model_copy(update={"train": config.train.model_copy(update={"eval_every_epochs": every})})


def _require_torch(configs: list[Config]) -> None:
    """Raise EnvironmentProblem where PyTorch is missing, UsageError where a config can't be followed in it."""
    if find_spec("torch") is None:
        raise EnvironmentProblem("--torch needs PyTorch: pip install 'r3d-fast[torch]'")
    from bench.studies.torch_training import check_followed

    for config in configs:
        check_followed(config)


@contextmanager
def _folder(runs: Path | None) -> Iterator[Path]:
    """The folder of the runs: `runs`, or one that is gone afterwards."""
    if runs is not None:
        make_folder(runs)
        yield runs
        return
    with temporary_folder() as folder:
        yield folder


def _yaml(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)

"""What training by each shipped config of the paper and of the reference run costs, by arithmetic: docs/paper.md.

The hours are those of one V100 in float32, if computing is all that takes time. They scale the reference run's
compute by the multiply-adds of the models (r3d_fast/models/cost.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from bench.reporting.text import UNKNOWN, markdown
from pipelines.errors import UsageError
from pipelines.specs import DEFAULT_BATCH
from r3d_fast.config.config import Config, load_config
from r3d_fast.config.sections import ModelSpec
from r3d_fast.config.yaml_files import shipped_configs
from r3d_fast.models.cost import summarise
from r3d_fast.models.cost_table import BATCH, ModelSummary

# The reference run on a V100, Paddle 2.2, float32 (justld/3D-ResNets_paddle): training steps alone, without loading.
V100_CLIPS_PER_SECOND = 156.0
V100_MODEL = "r3d18_reference"
# A training step computes as much as three forward passes: one forward, and one backward for each of the gradients of
# the weights and of the inputs.
TRAINING_PASSES = 3
_FLOAT32 = 4  # bytes
_MIB_PER_GIB = 1024


class DataSet(NamedTuple):
    """How many videos, or annotated segments of videos, a data set has for training and for evaluation."""

    train: int
    evaluated: int


# By the first part of the names of configs. Of data sets with several splits: the first.
DATA_SETS = {
    "ucf101": DataSet(9_537, 3_783),  # the official lists
    "hmdb51": DataSet(3_570, 1_530),  # the official lists: 70 and 30 videos of each of 51 classes
    "kinetics400": DataSet(240_000, 20_000),  # rounded: the copy of open-mmlab/mmaction has 240,436 and 19,796
    "kinetics700": DataSet(542_000, 34_000),  # rounded: FiftyOne's zoo says 542,352 and 34,125 of the edition of 2020
    "activitynet": DataSet(15_410, 7_654),  # segments of release 1.3, activity-net.org/download.html
}

# Mean of top1 and top5 in percent on the validation videos of Kinetics-400: README of kenshohara/3D-ResNets-PyTorch,
# branch CVPR2018, "Performance of the models on Kinetics".
KINETICS_MEANS = {
    "kinetics400_r3d18": 66.1,
    "kinetics400_r3d34": 71.0,
    "kinetics400_r3d50": 72.2,
    "kinetics400_r3d101": 73.3,
    "kinetics400_r3d152": 73.7,
    "kinetics400_r3d200": 73.7,
    "kinetics400_preact200": 73.4,
    "kinetics400_wide50": 74.7,
    "kinetics400_resnext101": 75.4,
    "kinetics400_densenet121": 70.8,
    "kinetics400_densenet201": 72.3,
}
# top1 in percent on UCF-101: the log of justld/3D-ResNets_paddle, of one clip a video; Hara et al. 2018.
FROM_SCRATCH = {"ucf101_r3d18": 43.98, "ucf101_r3d18_paper": 42.4}
# top1 in percent of whole videos of ResNeXt-101 with clips of 64 frames (Hara et al. 2018, abstract).
OF_64_FRAMES = {"ucf101_resnext101_64f_finetune": 94.5, "hmdb51_resnext101_64f_finetune": 70.2}


@dataclass(frozen=True)
class RecipeCost:
    """What a config computes. `gmac`: 10^9 multiply-adds of a clip's forward pass; `passes`: forward passes in all.

    `memory_gib`: weights, gradients, momentum and activations of a batch in float32, as `ModelSummary` counts them.
    """

    config: Config
    gmac: float
    passes: int
    memory_gib: float

    @property
    def hours(self) -> float:
        """Hours on one V100 in float32, if computing is all that takes time."""
        return self.gmac * self.passes / _v100_gmac_per_second() / 3600

    @property
    def at_most(self) -> bool:
        """Whether parts of the network are frozen, so that less is computed and held than is counted here."""
        return self.config.init.freeze_until is not None


def recipe_cost(config: Config, data: DataSet) -> RecipeCost:
    """The cost of training by `config` on a data set as large as `data`.

    Raises UsageError where the number of clips of an evaluation depends on how long the videos are.
    """
    views = config.clip.views if config.eval.views is None else config.eval.views
    crops = config.augment.eval_crops if config.eval.crops is None else config.eval.crops
    if isinstance(views, str):
        raise UsageError(f"eval.views: {views}: as many as the videos are long; expected a number for this arithmetic")
    batch, epochs = config.loader.batch_size_or(DEFAULT_BATCH), config.train.epochs
    clips = data.train * config.loader.repeats // batch * batch  # training drops an incomplete last batch
    evaluations = math.ceil(epochs / config.train.eval_every_epochs)
    passes = TRAINING_PASSES * clips * epochs + data.evaluated * views * crops * evaluations
    summary = _summary(config.model, config.clip.num_frames, config.augment.size_px)
    return RecipeCost(config, summary.gmac, passes, _memory_gib(summary, batch))


@cache
def _summary(model: ModelSpec, frames: int, size: int) -> ModelSummary:
    """The cost of a model with 101 classes: a head for 700 adds less than 0.02 % of multiply-adds."""
    choices = model.model_dump(exclude={"name", "data_format"})
    return summarise(model.name, frames=frames, size=size, **choices)


@cache
def _v100_gmac_per_second() -> float:
    """10^9 multiply-adds of forward passes that the reference run's card computes a second."""
    return V100_CLIPS_PER_SECOND * TRAINING_PASSES * summarise(V100_MODEL).gmac


def _memory_gib(summary: ModelSummary, batch: int) -> float:
    """The memory of a training step with `batch` clips; `ModelSummary` has that of one with `BATCH`."""
    weights = 3 * summary.parameters * _FLOAT32 / 2**20
    return (weights + (summary.memory_mib - weights) / BATCH * batch) / _MIB_PER_GIB


def recipe_table(kind: str, published: Mapping[str, float]) -> str:
    """The table of the configs of a `kind`, which is scratch, kinetics or finetune, with their `published` figures."""
    rows = [["config", "published", "GMAC a clip", "clips an epoch", "epochs", "hours, V100 fp32", "memory (GiB)"]]
    for name, cost in _costs(kind):
        up_to = "up to " if cost.at_most else ""
        figure = published.get(name)
        rows.append(
            [
                f"`{name}`",
                UNKNOWN if figure is None else str(figure),
                f"{cost.gmac:.2f}",
                f"{_data_set(name).train:,}",
                str(cost.config.train.epochs),
                f"{up_to}{_two_figures(cost.hours)}",
                f"{up_to}{_two_figures(cost.memory_gib)}",
            ]
        )
    return markdown(rows, right=range(1, len(rows[0])))


def _costs(kind: str) -> Iterator[tuple[str, RecipeCost]]:
    """The configs of a kind by name, data set after data set; those of each by the multiply-adds of their models."""
    for data in DATA_SETS:
        names = [name for name in shipped_configs() if name.startswith(f"{data}_") and _kind(name) == kind]
        yield from sorted(
            ((name, recipe_cost(load_config(name), _data_set(name))) for name in names),
            key=lambda row: (row[1].gmac, row[0]),
        )


def _kind(name: str) -> str:
    if name.endswith("_finetune"):
        return "finetune"
    return "kinetics" if name.startswith("kinetics") else "scratch"


def _data_set(name: str) -> DataSet:
    return DATA_SETS[name.partition("_")[0]]


def _two_figures(value: float) -> str:
    """The value with two figures that mean something: 0.43, 8.4, 130."""
    return f"{float(f'{value:.2g}'):,.{0 if value >= 9.95 else 1 if value >= 0.995 else 2}f}"

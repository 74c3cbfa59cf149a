"""Makes the parts of a run from its config, in the same way as `train` and `eval` do."""

from __future__ import annotations

from typing import Any

from pipelines.index.video_index import VideoIndex
from pipelines.loader import ClipLoader
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import Config
from r3d_fast.learning.learner import Learner, model_to_train
from r3d_fast.loaders import eval_loader, train_loader
from r3d_fast.ranks.group import Group
from r3d_fast.weights.checkpoint import Checkpoint
from r3d_fast.weights.stored_model import new_model


def a_model(config: Config, classes: int) -> Any:
    return new_model(config.model, classes, config.train.seed)


def a_learner(
    config: Config, classes: int, precision: Precision, device: str, start: Checkpoint | None = None,
    group: Group | None = None,
) -> Learner:  # fmt: skip
    model = model_to_train(config.model, classes, config.train.seed, config.init)
    return Learner(model, config.optimizer, config.train, precision, device, start, group)


def train_clips(config: Config, index: VideoIndex, group: Group | None = None) -> ClipLoader:
    return train_loader(index, config.data.train_split, config.clip, config.augment, config.loader, group=group)


def eval_clips(config: Config, index: VideoIndex, group: Group | None = None) -> ClipLoader:
    return eval_loader(index, config.data.eval_split, *config.eval_specs(), group=group)

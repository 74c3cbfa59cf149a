"""A training by PyTorch that is to give what `r3d_fast.training.train` gives: same weights at the start, same clips.

The clips come from r3d-fast's loader, so that readers and crops can't differ. The model, its gradients, the optimiser
and batch norm's statistics are PyTorch's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bench.studies.torch_model import ResNet, copy_weights, design_of, paddle_variances
from pipelines.errors import UsageError
from pipelines.loader import Batch, ClipLoader
from pipelines.machine.cpus import usable_cpus
from pipelines.specs import Spec
from r3d_fast.config.config import Config
from r3d_fast.learning.learner import model_to_train
from r3d_fast.learning.schedule import learning_rate
from r3d_fast.loaders import eval_loader, open_index, train_loader
from r3d_fast.metrics import VideoScores

PYTORCH, WITH_PADDLE_VARIANCES = "PyTorch", "PyTorch, Paddle's variances"
Records = list[dict[str, Any]]
# The settings that may differ from their defaults: those that this training follows, and those that change no result.
_FOLLOWED = {
    "model": {"name", "width", "shortcut", "data_format"},
    "init": set(),
    "optimizer": {"lr", "momentum", "nesterov", "weight_decay"},
    "train": {
        "epochs", "seed", "device", "precision", "max_minutes", "eval_every_epochs", "log_to", "log_every_steps",
        "checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints", "rank_timeout_seconds",
    },
}  # fmt: skip


def check_followed(config: Config) -> None:
    """Raise UsageError, with the setting, where `config` asks for what the training in PyTorch does not do."""
    sections: dict[str, Spec] = {
        "model": config.model, "init": config.init, "optimizer": config.optimizer, "train": config.train
    }  # fmt: skip
    for name, section in sections.items():
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if key not in _FOLLOWED[name] and value != field.default:
                raise UsageError(f"{name}.{key} {value}: not done with --torch; expected {field.default}")
    if config.schedule.kind == "plateau":
        raise UsageError("schedule.kind plateau: not done with --torch; expected piecewise, cosine or constant")
    if config.train.device == "gpu" or config.train.precision not in ("auto", "fp32"):
        raise UsageError("--torch compares in fp32 on the CPU; expected train.device=cpu and train.precision=fp32")


def train_in_torch(config: Config, on_batch: Callable[[Batch], None], say: Callable[[str], None]) -> dict[str, Records]:
    """The records (as in metrics.jsonl) of a training as `config` says: once as PyTorch evaluates, and once more.

    The second time its evaluations take the running variances that Paddle would have; the training is the same one.
    `on_batch` is called with each training batch. Raises what `check_followed` and the loader raise.
    """
    check_followed(config)
    torch.set_num_threads(usable_cpus())
    index = open_index(config.data)
    with (
        train_loader(index, config.data.train_split, config.clip, config.augment, config.loader) as clips,
        eval_loader(index, config.data.eval_split, *config.eval_specs()) as eval_clips,
    ):
        return _Training(config, clips, eval_clips, on_batch, say).records()


class _Training:
    """A training, step by step."""

    def __init__(
        self, config: Config, clips: ClipLoader, eval_clips: ClipLoader, on_batch: Callable[[Batch], None],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._config, self._clips, self._eval_clips, self._on_batch, self._say = (
            config, clips, eval_clips, on_batch, say,
        )  # fmt: skip
        ours = model_to_train(config.model, len(clips.index.classes), config.train.seed, config.init)
        self._model = ResNet(design_of(ours))
        copy_weights(self._model, {name: value.numpy() for name, value in ours.state_dict().items()})
        optimizer = config.optimizer
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=optimizer.lr, momentum=optimizer.momentum, nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )  # fmt: skip
        self._step, self._began = 0, time.monotonic()
        self._records: dict[str, Records] = {PYTORCH: [], WITH_PADDLE_VARIANCES: []}

    def records(self) -> dict[str, Records]:
        """All records, after the training."""
        spec = self._config.train
        for epoch in range(spec.epochs):
            self._train_epoch(epoch)
            is_last = epoch + 1 == spec.epochs or self._is_time_over()
            if is_last or (epoch + 1) % spec.eval_every_epochs == 0:
                self._evaluate(epoch)
            if is_last:
                break
        return self._records

    def _is_time_over(self) -> bool:
        minutes = self._config.train.max_minutes
        return minutes is not None and time.monotonic() - self._began >= 60 * minutes

    def _train_epoch(self, epoch: int) -> None:
        self._model.train()
        asked = time.monotonic()
        for batch in self._clips.epoch(epoch):
            self._on_batch(batch)
            loss = self._learn(batch)
            now = time.monotonic()
            record = {"kind": "train", "epoch": epoch + 1, "step": self._step, "loss": loss, "seconds": now - asked}
            for records in self._records.values():
                records.append(record)
            asked = now
            if self._is_time_over():
                break

    def _learn(self, batch: Batch) -> float:
        """The loss of a batch, before the step that is taken on it."""
        config = self._config
        rate = learning_rate(
            self._step, base=config.optimizer.lr, steps_per_epoch=len(self._clips), epochs=config.train.epochs,
            spec=config.schedule,
        )  # fmt: skip
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        weights = torch.from_numpy(batch.is_real.astype(np.float32) / max(1, int(batch.is_real.sum())))
        logits = self._model(torch.from_dlpack(batch.clips))
        loss = (F.cross_entropy(logits, torch.from_numpy(batch.labels), reduction="none") * weights).sum()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._step += 1
        return float(loss.detach())

    def _evaluate(self, epoch: int) -> None:
        self._model.eval()
        self._note(PYTORCH, epoch)
        with paddle_variances(self._model):
            self._note(WITH_PADDLE_VARIANCES, epoch)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _note(self, name: str, epoch: int) -> None:
        """Add the record of an evaluation."""
        scores = VideoScores(len(self._clips.index.classes))
        for batch in self._eval_clips.epoch(0):
            logits = self._model(torch.from_dlpack(batch.clips)).numpy()
            scores.update(batch.video_ids, logits, batch.labels, batch.is_real)
        figures = scores.result()
        self._records[name].append(
            {"kind": "eval", "epoch": epoch + 1, "step": self._step, "loss": figures["loss"], "top1": figures["top1"]}
        )
        self._say(f"{name}: epoch {epoch + 1}: test top1 {100 * (figures['top1'] or 0):.2f} %  loss {figures['loss']}")

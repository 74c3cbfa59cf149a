"""What a run is going to do, and what it will take: the plan that is printed before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.index.video_index import VideoIndex
from pipelines.plain_text import plain
from r3d_fast.config.config import Config
from r3d_fast.console import as_time, counted
from r3d_fast.planning.batch_choice import ChosenBatches
from r3d_fast.runs.fold_results import resume_command

_NARROW = 80  # columns of a terminal; most lines fit


@dataclass(frozen=True)
class Videos:
    """The videos of a run: how many to train on and to evaluate on, and how uneven the classes are.

    `largest` and `smallest` are a class with the most and one with the fewest videos to train on, and how many these
    are. `majority` is the first class with the most videos to evaluate on, and its share of them: the highest top1 of
    a model that says the same class of every video, as reports and evaluations have it too.
    """

    train: int
    evaluate: int
    classes: int
    largest: tuple[str, int]
    smallest: tuple[str, int]
    majority: tuple[str, float]

    @classmethod
    def of(cls, index: VideoIndex, train_split: str, eval_split: str) -> Videos:
        """The videos of two splits of `index`."""
        train, evaluate = index.columns(train_split), index.columns(eval_split)
        evaluated = Counter(evaluate.label.tolist())
        most = min(evaluated, key=lambda label: (-evaluated[label], label))
        counts = dict.fromkeys(range(len(index.classes)), 0) | Counter(train.label.tolist())
        largest, smallest = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        return cls(
            len(train), len(evaluate), len(index.classes), (index.classes[largest], counts[largest]),
            (index.classes[smallest], counts[smallest]), (index.classes[most], evaluated[most] / len(evaluate)),
        )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What there is to do: `steps` an epoch, of which `done` in all are taken, and `evaluations`, as many are left.

    `batch` and `eval_batch` are the clips in a batch, of all processes together; an evaluation has `eval_batches`.
    """

    epochs: int
    steps: int
    done: int
    eval_batches: int
    evaluations: int
    batch: int
    eval_batch: int


@dataclass(frozen=True)
class Plan:
    """A plan of a run; `str` gives it in words, and `as_json` as JSON values.

    `model` is the network and its parameters, `rate` the base learning rate, and `rate_reason` says in words
    what it was scaled from, "" where it is as the config has it. Memory is in bytes; `step_seconds` and
    `eval_seconds` are those of a step and of an evaluation, None where no trial was made.
    """

    device: str
    model: str
    videos: Videos
    clip: str
    batch_reason: str
    rate: float
    rate_reason: str
    memory_bytes: float | None
    free_bytes: int
    free_of: str
    work: Work
    step_seconds: float | None
    eval_seconds: float | None
    run: str

    @property
    def epoch_seconds(self) -> float | None:
        """The seconds that the steps of an epoch take."""
        return None if self.step_seconds is None else self.work.steps * self.step_seconds

    @property
    def seconds(self) -> float | None:
        """The seconds that the rest of the run takes."""
        if self.step_seconds is None:
            return None
        steps = self.work.epochs * self.work.steps - self.work.done
        return steps * self.step_seconds + self.work.evaluations * (self.eval_seconds or 0.0)

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**asdict(self), "epoch_seconds": self.epoch_seconds, "seconds": self.seconds}

    def __str__(self) -> str:
        return "\n".join(f"{name:<8} {plain(text)}" for name, text in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        videos, work = self.videos, self.work
        yield "device", self.device
        yield "model", self.model
        yield (
            "data",
            (
                f"{counted(videos.train, 'video')} to train on, {videos.evaluate} to evaluate on, "
                f"{counted(videos.classes, 'class', 'classes')}"
            ),
        )
        yield "", self._imbalance()
        yield "clips", f"{self.clip}; batches of {work.batch}, of {work.eval_batch} in evaluations"
        if self.batch_reason:
            yield "", f"batch: {self.batch_reason}"
        yield "", f"learning rate: {self.rate:.3g}{f' ({self.rate_reason})' if self.rate_reason else ''}"
        if self.memory_bytes is not None:
            yield "memory", f"about {_gigabytes(self.memory_bytes)} of {_gigabytes(self.free_bytes)} ({self.free_of})"
        elif self.free_bytes:
            yield "memory", f"not measured; {_gigabytes(self.free_bytes)} are free ({self.free_of})"
        done = f", {work.done} of them done" if work.done else ""
        steps = f"{counted(work.epochs, 'epoch')} of {counted(work.steps, 'step')}"
        yield "steps", f"{steps}: {work.epochs * work.steps}{done}"
        if (seconds := self.seconds) is not None and (epoch := self.epoch_seconds) is not None:
            evaluation = "" if self.eval_seconds is None else f" and {as_time(self.eval_seconds)} for an evaluation"
            left = "left" if work.done else "in all"
            yield "time", f"about {as_time(epoch)} an epoch{evaluation}, {as_time(seconds)} {left}"
        else:
            yield "time", "not known before the first steps"
        yield "folder", f"{self.run}"
        yield "stop", f"Ctrl-C; go on: {resume_command(Path(self.run))}"

    def _imbalance(self) -> str:
        """How uneven the classes are, in words."""
        (largest, most), (smallest, fewest) = self.videos.largest, self.videos.smallest
        if most == fewest:
            return f"{most} to train on of each class"
        said, share = self.videos.majority
        always = f"always saying {said} is right in {100 * share:.1f} %"
        text = f"{fewest} ({smallest}) to {most} ({largest}) of a class; {always}"
        return text if len(text) + 9 <= _NARROW else f"{fewest} to {most} of a class; {always}"


def plan_of(
    config: Config, chosen: ChosenBatches, index: VideoIndex, work: Work, *, device: str, parameters: int,
    run: str,
) -> Plan:  # fmt: skip
    """The plan of a run of `config`.

    `chosen` is what its batches were chosen by, and what a trial has measured. `device` says in words what computes,
    `parameters` counts those that are trained.
    """
    measured, optimizer = chosen.measured, config.optimizer
    batch, eval_batch = work.batch, work.eval_batch
    start = "random weights" if config.init.weights is None else str(config.init.weights)
    frozen = "" if config.init.freeze_until is None else f" trained (from {config.init.freeze_until} on)"
    side, clip = config.augment.size_px, config.clip
    clips = batch * config.train.accumulate
    scaled = "" if optimizer.lr_for_batch in (None, clips) else f"{optimizer.lr:g} x {clips}/{optimizer.lr_for_batch}"
    return Plan(
        device, f"{config.model.name}, {parameters / 1e6:.1f} million parameters{frozen}, from {start}",
        Videos.of(index, config.data.train_split, config.data.eval_split),
        f"{clip.num_frames} frames of {side} x {side} px", chosen.reason,
        config.base_rate(batch), f"optimizer.lr {scaled}, by lr_for_batch" if scaled else "",
        chosen.need_bytes, chosen.free_bytes, chosen.limit, work,
        None if measured is None else config.train.accumulate * measured.step_seconds.at(batch),
        None if measured is None else work.eval_batches * measured.eval_seconds.at(eval_batch), run,
    )  # fmt: skip


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"

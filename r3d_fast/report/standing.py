"""How good the best model of a run is, in figures and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r3d_fast.report.class_tables import fraction, interval
from r3d_fast.runs.history import RunHistory, number


@dataclass(frozen=True)
class EvaluatedSplit:
    """The split that a run is evaluated on: its name ("" where not known), and whether it was trained on it, too."""

    name: str = ""
    is_trained_on: bool = False

    def videos(self, count: int) -> str:
        """What the `count` videos of the split are, in words."""
        noun = "video" if count == 1 else "videos"
        if self.is_trained_on:
            return f"{count} {noun} of split {self.name}, on which it was trained too"
        return f"{count} held-out {noun}" + (f" (split {self.name})" if self.name else "")

    @property
    def legend(self) -> str:
        """The name of a curve over its videos."""
        return f"evaluated on {self.name}, trained on too" if self.is_trained_on else "held-out videos"


def evaluated_split(history: RunHistory) -> EvaluatedSplit:
    """The split whose videos the run is evaluated on, by evaluation/figures.json, else by config.yaml."""
    found = history.figures.get("split") or history.setting("data", "eval_split")
    if not isinstance(found, str):
        return EvaluatedSplit()
    return EvaluatedSplit(found, found == history.setting("data", "train_split"))


@dataclass(frozen=True)
class Standing:
    """How good the best model of a run is, by its evaluation over `videos` videos; figures are fractions or None.

    `epoch` and `step` say when it was evaluated, None where that is not known. `majority` is the top1 of a model that
    always says the largest class, which is `largest`. `low` and `high` are the 95 % confidence interval of top1. `only`
    is the one class that the model says of every video; "" where it says several. `split` is that of the videos.
    """

    epoch: int | None
    step: int | None
    videos: int
    top1: float | None
    top5: float | None
    loss: float | None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    majority: float | None = None
    largest: str = ""
    low: float | None = None
    high: float | None = None
    only: str = ""
    split: EvaluatedSplit = EvaluatedSplit()

    def verdict(self) -> str:
        """What the figures mean, in a sentence or two."""
        if self.top1 is None:
            return "This run has not been evaluated yet."
        when = "" if self.epoch is None else f" after epoch {self.epoch}"
        text = f"The best model{when} is right about {percent(self.top1)} of {self.split.videos(self.videos)}"
        if self.low is not None and self.high is not None:
            text += f" (95 % confidence: {percent(self.low)} to {percent(self.high)})"
        if self.split.is_trained_on:
            text += ". How well it does on other videos is not known"
        if self.majority is None:
            return f"{text}."
        text += f". Always saying their largest class, {self.largest}, would be right about {percent(self.majority)}."
        if self.only:
            return f"{text} This model says {self.only} of every video: it has not learnt to tell the classes apart."
        if self.low is not None and self.low <= self.majority:
            text += " So it is not certain that the model has learnt to tell the classes apart."
        return text


def standing(history: RunHistory) -> Standing:
    """How good the best model is: by evaluation/figures.json, else by metrics.jsonl alone."""
    video = history.figures.get("video")
    if isinstance(video, dict) and fraction(video.get("top1")) is not None:
        top1, count, counts = fraction(video.get("top1")), whole(video, "count") or 0, video.get("counts")
        known = {name: n for name, n in counts.items() if isinstance(n, int)} if isinstance(counts, dict) else {}
        low, high = _interval(top1, count)
        return Standing(
            whole(history.figures, "epoch"), whole(history.figures, "step"), count, top1, fraction(video.get("top5")),
            _known(number(video, "loss")), fraction(video.get("balanced_accuracy")), fraction(video.get("macro_f1")),
            fraction(video.get("majority")), max(known, key=lambda name: known[name], default=""), low, high,
            _only_class(video), evaluated_split(history),
        )  # fmt: skip
    best = history.best
    if best is None:
        return Standing(None, None, 0, None, None, None)
    top1, count = fraction(best.get("top1")), whole(best, "count") or 0
    low, high = _interval(top1, count)
    return Standing(
        whole(best, "epoch"), whole(best, "step"), count, top1, fraction(best.get("top5")),
        _known(number(best, "loss")), low=low, high=high, split=evaluated_split(history),
    )  # fmt: skip


def misfit(history: RunHistory) -> str | None:
    """What is to be said where evaluation/ is not of the best evaluation in metrics.jsonl; else None."""
    step, best = whole(history.figures, "step"), history.best
    if step is None or best is None or whole(best, "step") == step:
        return None
    same_step = [record for record in history.evaluations if whole(record, "step") == step]
    if same_step and number(same_step[-1], "top1") == number(best, "top1"):
        return None  # an older version, which kept the first of several evaluations with the same top1
    return (
        f"evaluation/ is of step {step}, but the best evaluation in metrics.jsonl is that of step "
        f"{whole(best, 'step')}: the run went on from an earlier checkpoint, or some of its files are not its own"
    )


def percent(share: float | None) -> str:
    """A fraction as percent, with a space that does not break; a dash for None."""
    return "\u2013" if share is None else f"{100 * share:.1f}\u00a0%"


def whole(values: Mapping[str, Any], key: str) -> int | None:
    """The integer `key` of `values`; None where it is missing or no integer that is 0 or more."""
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _only_class(video: Mapping[str, Any]) -> str:
    """The class that was predicted for every video, if there are others; only such classes have a precision."""
    precision = video.get("precision")
    said = [name for name, share in precision.items() if share is not None] if isinstance(precision, dict) else []
    return said[0] if len(said) == 1 < len(precision or ()) else ""


def _interval(share: float | None, count: int) -> tuple[float, float] | tuple[None, None]:
    return interval(share, count) if share is not None and count > 0 else (None, None)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

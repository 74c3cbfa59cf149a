"""What is to be known of a run: how it was trained, on which videos, on which machine, with which settings."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.checks.check import Check
from pipelines.errors import R3DFastError
from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import Config
from r3d_fast.console import as_time, counted
from r3d_fast.report.standing import percent, whole
from r3d_fast.runs.history import RunHistory, number
from r3d_fast.runs.metrics_file import Record

Fact = tuple[str, str]  # what it is, and its value


def progress_of(history: RunHistory, running: bool) -> str:
    """How far the run is, in words."""
    steps, planned = history.steps, history.setting("train", "epochs")
    if not steps:
        return "No step has been taken yet."
    epoch, step = whole(steps[-1], "epoch") or 0, whole(steps[-1], "step") or 0
    evaluated = max((whole(record, "epoch") or 0 for record in history.evaluations), default=0)
    of = f" of {planned}" if isinstance(planned, int) else ""
    if running:
        return f"Running: in epoch {epoch}{of}, {counted(step, 'step')} taken."
    if isinstance(planned, int) and evaluated >= planned:
        return f"Ended after {counted(evaluated, 'epoch')}, {counted(step, 'step')}."
    return f"Ended in epoch {epoch}{of}, {counted(step, 'step')} taken."


def run_facts(history: RunHistory, running: bool) -> list[Fact]:
    """What was trained by which command, how long it took, and how fast it was."""
    environment, steps = history.environment, history.steps
    seconds = [_sum(part, "seconds") for part in (steps, history.evaluations)]
    facts = [("folder", str(history.path.resolve())), ("command", shown_command(environment))]
    earlier = environment.get("earlier")
    parts = [part for part in earlier if isinstance(part, dict)] if isinstance(earlier, list) else []
    facts += [(f"before, {_text(part.get('started'))}", shown_command(part)) for part in parts]
    facts += [("started", _text(environment.get("started"))), ("state", progress_of(history, running))]
    if steps:
        facts.append((
            "time", f"{as_time(sum(seconds))}: {as_time(seconds[0])} for steps, {as_time(seconds[1])} for evaluations"
        ))  # fmt: skip
    if speed := _speed(steps):
        facts.append(("speed", speed))
    facts += _planned_facts(history)
    weights = history.setting("init", "weights")
    facts.append(("began with", "random weights" if weights is None else str(weights)))
    clip, size = history.setting("clip", "num_frames"), history.setting("augment", "size_px")
    if clip is not None:
        facts.append(("clips", f"{clip} frames of {size}x{size} px, {_batch(history)} a batch"))
    return [fact for fact in facts if fact[1]]


def _batch(history: RunHistory) -> Any:
    """The clips in a batch: as planned, which may be fewer than the setting, which stands in where there is no plan."""
    work = history.plan.get("work")
    planned = whole(work, "batch") if isinstance(work, dict) else None
    return planned or history.setting("loader", "batch_size")


def _planned_facts(history: RunHistory) -> list[Fact]:
    """The device, the model, and the time and memory that the plan expected; by the config where there is no plan."""
    plan, name = history.plan, history.setting("model", "name")
    by_config = "" if name is None else f"{name}, width {history.setting('model', 'width')}"
    facts = [("device", _text(plan.get("device"))), ("model", _text(plan.get("model")) or by_config)]
    if not math.isnan(seconds := number(plan, "seconds")):
        facts.append(("time that was planned", as_time(seconds)))
    if not math.isnan(size := number(plan, "memory_bytes")):
        facts.append(("memory that was measured", f"{size / 2**30:.1f} GiB"))
    return facts


def data_facts(history: RunHistory, index: VideoIndex | None, check: Check | None) -> list[Fact]:
    """Which videos it was trained and evaluated on, and what `check` says of them."""
    figures = history.figures
    facts = [
        ("videos", _text(figures.get("root") or history.setting("data", "root"))),
        ("index", _text(figures.get("index") or history.setting("data", "index"))),
    ]
    if index is not None:
        facts.append(("form", index.kind))
        facts.append(
            ("splits", ", ".join(f"{split}: {counted(count, 'video')}" for split, count in index.counts("split")))
        )
        facts.append(("classes", _class_sizes(training_counts(history, index))))
    if check is not None:
        for name, spread, unit in (("lengths", check.lengths, "s"), ("frame rates", check.rates, "a second")):
            if spread is not None:
                text = f"{spread.low:.4g} to {spread.high:.4g} {unit}, median {spread.median:.4g}"
                facts.append((name, text if spread.low < spread.high else f"{spread.low:.4g} {unit}"))
        facts += [("sizes", _most(check.sizes)), ("codecs", _most(check.codecs)), ("held out", check.rule)]
    facts.append(("evaluated", _text(figures.get("protocol"))))
    return [fact for fact in facts if fact[1]]


def training_counts(history: RunHistory, index: VideoIndex | None) -> dict[str, int]:
    """The videos to train on of each class; empty where that is not known."""
    split = history.setting("data", "train_split")
    if index is None or not isinstance(split, str):
        return {}
    try:
        labels = Counter(index.columns(split).label.tolist())
    except R3DFastError:
        return {}
    return {name: labels.get(label, 0) for label, name in enumerate(index.classes)}


def environment_facts(environment: Mapping[str, Any]) -> list[Fact]:
    """The machine and the versions, as env.json has them."""
    versions = environment.get("versions")
    gpus = environment.get("gpus")
    facts = [
        ("system", _text(environment.get("platform"))),
        ("processor", " x ".join(_text(environment.get(key)) for key in ("cpus", "cpu") if environment.get(key))),
        ("GPUs", ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none"),
        ("driver", _text(environment.get("driver"))),
        ("commit", _text(environment.get("commit"))),
    ]
    if isinstance(versions, dict):
        facts += [(str(name), str(version)) for name, version in versions.items()]
    return [fact for fact in facts if fact[1]] if environment else []


def differences(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, default, value) of each key in the sections `config` that is not at its default."""
    defaults = Config().model_dump(mode="json")
    found = []
    for section, values in config.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            default = defaults.get(section, {}).get(key)
            if value != default:
                found.append((f"{section}.{key}", _as_json(default), _as_json(value)))
    return found


def shown_command(environment: Mapping[str, Any]) -> str:
    """The command line in `environment`, quoted for a shell; "" where it is missing."""
    command = environment.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        return ""
    program, *rest = command
    if Path(program).name in ("r3d-fast", "__main__.py"):
        program = "r3d-fast"
    return shlex.join([program, *rest])


def _class_sizes(counts: Mapping[str, int]) -> str:
    """How many classes there are, and how evenly the training videos are spread over them; "" where not known."""
    if not counts:
        return ""
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[largest] == counts[smallest]:
        return f"{len(counts)}, each with {counted(counts[largest], 'training video')}"
    share = percent(counts[largest] / sum(counts.values()))
    return (
        f"{len(counts)}; of the training videos {counts[largest]} ({share}) are of the largest, {largest}, and "
        f"{counts[smallest]} of the smallest, {smallest}"
    )


def _most(counts: Mapping[str, int], most: int = 5) -> str:
    """The first of `counts` in words, and how many more there are."""
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
    more = len(counts) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more else shown)


def _sum(records: Sequence[Record], key: str) -> float:
    return math.fsum(value for record in records if not math.isnan(value := number(record, key)))


def _speed(steps: Sequence[Record]) -> str:
    """All clips of the `steps` by all their seconds, and the share of these spent waiting; "" where not known."""
    known = [step for step in steps if number(step, "seconds") > 0 and number(step, "count") >= 0]
    seconds = _sum(known, "seconds")
    if not known:
        return ""
    said = f"{_sum(known, 'count') / seconds:.1f} clips/s (all clips by all seconds of the steps)"
    waits = [number(step, "wait_share") * number(step, "seconds") for step in known]
    if math.isnan(waited := math.fsum(waits)):
        return said
    return f"{said}, {percent(waited / seconds)} of the time waiting for clips"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False)
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # YAML knows keys that are no strings, and values that hold themselves
        return repr(value)

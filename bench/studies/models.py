"""`bench studies models`: how many clips a second each model evaluates on this CPU; the table of docs/models.md."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.measuring.turns import Say
from bench.reporting.figures import spread
from bench.reporting.results import StudyReport, study_report
from bench.reporting.text import UNKNOWN, as_rate, known, markdown
from pipelines.errors import EnvironmentProblem, UsageError

KIND = "evaluation speed of the models on the CPU"
RESULTS = Path(__file__).parents[1] / "results" / "models.json"
BATCH = 8
CLIP = (3, 16, 112, 112)
CLASSES = 101
_TOLERANCE = 1e-4  # of the largest logit: the graph's logits beside the eager ones

# UCF-101 and HMDB-51 top1 in percent, of whole videos, after fine-tuning weights of Kinetics: Hara et al. 2018,
# arXiv:1711.09577. With 64 frames a clip, ResNeXt-101 had 94.5 and 70.2.
PUBLISHED = {"r3d18": (84.4, 56.4), "r3d34": (87.7, 59.1), "r3d101": (88.9, 61.7), "resnext101": (90.7, 63.8)}


def measure_model(name: str, *, rounds: int, clip: tuple[int, ...] = CLIP, width: int = 64) -> dict[str, Any]:
    """Clips a second of `rounds` batches of `BATCH` clips, by the graph that evaluation uses.

    Its logits are compared with the model's own first. Raises EnvironmentProblem where they differ.
    """
    from r3d_fast.acceleration.cpu import traced
    from r3d_fast.backend.paddle import choose_device, import_paddle
    from r3d_fast.models.architectures import build_model

    paddle = import_paddle()
    choose_device("cpu")
    paddle.seed(0)
    model = build_model(name, num_classes=CLASSES, width=width)
    model.eval()
    forward = traced(model)
    clips = paddle.to_tensor(np.random.default_rng(0).standard_normal((BATCH, *clip), dtype=np.float32))
    with paddle.no_grad():
        expected = model(clips[:1]).numpy()
    scale = float(np.abs(expected).max())
    difference = float(np.abs(forward(clips[:1]).numpy() - expected).max()) / scale
    if not difference < _TOLERANCE:
        raise EnvironmentProblem(f"{name}: the graph's logits differ by {difference:.2g} of the largest")
    forward(clips)  # warm
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        forward(clips)
        seconds.append(time.perf_counter() - begin)
    median, low, high = (BATCH / value for value in (spread(seconds)[0], max(seconds), min(seconds)))
    return {
        "clips/s": round(median, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "seconds a batch": [round(value, 4) for value in seconds],
        "difference of the logits": difference,
    }


def measure_models(names: Sequence[str], *, rounds: int, threads: int, command: str, say: Say) -> StudyReport:
    """A report of the models of `names` (empty: all); `say` is told a line of each as soon as it is measured.

    Raises UsageError for a name that is no model's, and what `measure_model` raises.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when Paddle is imported
    from r3d_fast.models.architectures import MODELS

    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise UsageError(f"no model {unknown[0]!r}; expected one of: {', '.join(MODELS)}")
    results = {}
    for name in names or MODELS:
        results[name] = measure_model(name, rounds=rounds)
        gc.collect()
        rate, low, high = (as_rate(results[name][key]) for key in ("clips/s", "low", "high"))
        say(f"{name:16s} {rate:>6s} clips/s  ({low} to {high})")
    return study_report(KIND, command, {"batch": BATCH, "rounds": rounds, "threads": threads, **results})


def table(results: Mapping[str, Any]) -> str:
    """The table of docs/models.md: what each model costs, the published accuracies, clips/s where measured."""
    from r3d_fast.models.cost_table import stored_summaries

    rows = [["`model.name`", "parameters (M)", "GMAC a clip", "memory (MiB)", "UCF-101", "HMDB-51", "CPU clips/s"]]
    for summary in stored_summaries():
        measured = results.get(summary.name)
        published: Sequence[float | None] = PUBLISHED.get(summary.name, (None, None))
        rows.append(
            [
                f"`{summary.name}`",
                f"{summary.parameters / 1e6:.2f}",
                f"{summary.gmac:.2f}",
                f"{summary.memory_mib:.0f}",
                *(known(value, 1, 1) for value in published),
                UNKNOWN if measured is None else as_rate(measured["clips/s"]),
            ]
        )
    return markdown(rows, right=range(1, len(rows[0])))


def stored_results() -> dict[str, Any]:
    """What was measured last and kept beside this file; nothing where nothing was."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.is_file() else {}

"""How many clips a second each model evaluates on this CPU; the README's table of models."""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.measuring.machine import commit, describe
from bench.reporting.results import building, spread
from bench.reporting.text import UNKNOWN, as_rate, known, markdown
from pipelines.errors import EnvironmentProblem
from pipelines.machine.cpus import usable_cpus

KIND = "evaluation speed of the models on the CPU"
RESULTS = Path(__file__).parents[1] / "results" / "models.json"
BATCH = 8
CLIP = (3, 16, 112, 112)
CLASSES = 101
_TOLERANCE = 1e-4  # of the largest logit: the graph's logits beside the eager ones

# UCF-101 and HMDB-51 top1 in percent, of whole videos, after fine-tuning weights of Kinetics: Hara et al. 2018,
# arXiv:1711.09577. With 64 frames a clip, ResNeXt-101 had 94.5 and 70.2.
PUBLISHED = {"r3d18": (84.4, 56.4), "r3d34": (87.7, 59.1), "r3d101": (88.9, 61.7), "resnext101": (90.7, 63.8)}


def measure(name: str, *, rounds: int, clip: tuple[int, ...] = CLIP, width: int = 64) -> dict[str, Any]:
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


def as_report(results: Mapping[str, dict[str, Any]], rounds: int) -> dict[str, Any]:
    """What `measure` gave, by model, as `bench report` prints it."""
    return {
        "kind": KIND,
        "command": shlex.join(["python", "-m", "bench.studies.models", *(Path(word).name for word in sys.argv[1:])]),
        "commit": commit(Path(__file__).parent),
        "machine": describe().in_words(),
        "versions": describe().versions,
        "batch": BATCH,
        "rounds": rounds,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        **results,
    }


def table(results: Mapping[str, Any]) -> str:
    """The README's table, Markdown: what each model costs, the published accuracies, clips/s where measured."""
    from r3d_fast.models.cost import summarise_all

    rows = [["`model.name`", "parameters (M)", "GMAC a clip", "memory (MiB)", "UCF-101", "HMDB-51", "CPU clips/s"]]
    for summary in summarise_all():
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


def stored() -> dict[str, Any]:
    """What was measured last and kept beside this file; nothing where nothing was."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.is_file() else {}


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="F", help="Write all figures as JSON.")
@click.option("--rounds", type=click.IntRange(min=5), default=7, show_default=True, help="Batches a model.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads (default: usable CPUs).")
@click.option("--table", "only_table", is_flag=True, help="Measure nothing; print the README's table.")
def main(names: tuple[str, ...], json_file: Path | None, rounds: int, threads: int | None, only_table: bool) -> None:
    """Measure how many clips a second MODELs (default: all) evaluate on the CPU, 16 frames of 112 px, batch 8."""
    if only_table:
        click.echo(table(stored()))
        return
    os.environ["OMP_NUM_THREADS"] = str(threads or usable_cpus())  # read when Paddle is imported
    from r3d_fast.models.architectures import MODELS

    results = {}
    for name in names or MODELS:
        results[name] = measure(name, rounds=rounds)
        gc.collect()
        low, high = (as_rate(results[name][key]) for key in ("low", "high"))
        click.echo(f"{name:16s} {as_rate(results[name]['clips/s']):>6s} clips/s  ({low} to {high})")
    if json_file is not None:
        with building(json_file) as part:
            part.write_text(json.dumps(as_report(results, rounds), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

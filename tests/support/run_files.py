"""Writes the folders of runs as training leaves them, without training: of any number of steps, classes and videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import dump_config, load_config
from r3d_fast.metrics import ClassificationMetrics, class_figures

STEPS_PER_EPOCH = 20


def write_run(
    run: Path, classes: Sequence[str], *, videos: int = 400, epochs: int = 5, seed: int = 0,
    index: VideoIndex | None = None, names: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """Write a run of `epochs` epochs whose best model was evaluated on `videos` videos, and return its folder.

    The videos have the `names` (default: such as class/003.avi) and are those of `index`, if there is one.
    """
    random = np.random.default_rng(seed)
    (run / "evaluation").mkdir(parents=True, exist_ok=True)
    schedule = f"schedule.warmup_epochs={min(1, epochs - 1)}"
    config = load_config("demo", [f"train.epochs={epochs}", schedule, f"optimizer.lr={0.02 + seed / 100}"])
    (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    environment = {"versions": {"r3d-fast": "0"}, "cpu": "CPU", "cpus": 2, "gpus": [], "started": "2026-11-30"}
    command = ["/usr/bin/r3d-fast", "train", "-c", "my config", "--run", str(run)]
    (run / "env.json").write_text(json.dumps({**environment, "command": command}), encoding="utf-8")

    labels = random.integers(0, len(classes), videos)
    logits = random.normal(size=(videos, len(classes))) + 3.5 * np.eye(len(classes))[labels]
    metrics = ClassificationMetrics(len(classes))
    metrics.update(logits, labels, np.ones(videos, bool))
    figures = _figures(metrics, classes)
    where = {} if index is None else {"index": str(index.path), "root": str(index.root)}
    about = {"epoch": epochs, "step": epochs * STEPS_PER_EPOCH, "protocol": "1 clip a video", "bad": [], **where}
    write_json(run / "evaluation" / "figures.json", {**about, "video": figures, "videos": videos, "evaluated": videos})
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = names or [f"{classes[label]}/{number:04d}.avi" for number, label in enumerate(labels)]
    lines = [_prediction(name, label, row, classes) for name, label, row in zip(names, labels, shares, strict=False)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "evaluation" / "predictions.jsonl").write_text(text, encoding="utf-8")
    records = list(_records(epochs, figures, random))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return run


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def predictions(run: Path) -> list[dict[str, Any]]:
    """The lines of the run's predictions.jsonl."""
    lines = (run / "evaluation" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _figures(metrics: ClassificationMetrics, classes: Sequence[str]) -> dict[str, Any]:
    result = metrics.result()
    found = class_figures(result)
    columns = {
        "counts": result["counts"], "per_class": result["per_class"], "precision": found.precision, "f1": found.f1,
    }  # fmt: skip
    return {
        **{key: result[key] for key in ("loss", "top1", "top5", "count")},
        **{key: getattr(found, key) for key in ("balanced_accuracy", "macro_f1", "majority")},
        **{key: dict(zip(classes, values, strict=True)) for key, values in columns.items()},
        "confusion": result["confusion"].tolist(),
    }


def _prediction(name: str, label: int, shares: Any, classes: Sequence[str]) -> dict[str, Any]:
    best = np.argsort(-shares)[:5]
    return {
        "video": name, "label": classes[label], "predicted": classes[best[0]], "correct": bool(best[0] == label),
        "top": [{"class": classes[i], "probability": float(shares[i])} for i in best],
        "label_probability": float(shares[label]), "clips": 1,
    }  # fmt: skip


def _records(epochs: int, figures: dict[str, Any], random: np.random.Generator) -> Any:
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * STEPS_PER_EPOCH + 1, epoch * STEPS_PER_EPOCH + 1):
            done = step / (epochs * STEPS_PER_EPOCH)
            yield {
                "kind": "train", "epoch": epoch, "step": step, "loss": 4.0 * (1 - done) + float(random.random()),
                "top1": float(random.binomial(16, done)) / 16, "lr": 0.02 * (1 - done),
                "clips_per_second": 80 + float(random.normal()), "wait_share": float(random.random()) / 10,
                "count": 16, "seconds": 0.25, "skipped": 0,
            }  # fmt: skip
        part = epoch / epochs
        yield {
            "kind": "eval", "epoch": epoch, "step": epoch * STEPS_PER_EPOCH, "loss": figures["loss"] / part,
            "top1": figures["top1"] * part, "top5": figures["top5"] * part, "clip_loss": figures["loss"] / part + 0.1,
            "count": figures["count"], "seconds": 1.5,
        }  # fmt: skip

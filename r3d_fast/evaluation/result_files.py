"""The files of an evaluation: figures, top1 of each class, confusion matrix, and the prediction for each video."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from r3d_fast.evaluation.evaluate import Evaluation, evaluation_json
from r3d_fast.files import make_folder, new_file, write_file

_TOP = 5  # classes named for each video
_MOST_NAMED = 60  # classes whose names are drawn beside the matrix; more names would overlap


def write_evaluation(folder: Path, evaluation: Evaluation, classes: tuple[str, ...]) -> None:
    """Write figures.json, per_class.csv, confusion.csv, confusion.png and predictions.jsonl to `folder`.

    Each file is written whole, or stays as it was. Without matplotlib there is no confusion.png, and a warning on
    stderr. Raises UsageError where `folder` can't be written.
    """
    texts = {
        "figures.json": json.dumps(evaluation_json(evaluation, classes), indent=1) + "\n",
        "per_class.csv": _per_class(evaluation, classes),
        "confusion.csv": _confusion(evaluation, classes),
        "predictions.jsonl": "".join(json.dumps(line) + "\n" for line in predictions(evaluation, classes)),
    }
    make_folder(folder, "choose another --out")
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8", "backslashreplace"))
    _draw_confusion(folder / "confusion.png", evaluation, classes)


def predictions(evaluation: Evaluation, classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The prediction for each video as JSON values, in the order of the index, or the error of an unreadable one.

    Probabilities are the mean of the softmax of the video's clips.
    """
    reasons = {bad.video_id: bad.reason for bad in evaluation.bad}
    predicted = {video: (label, scores) for video, label, scores in evaluation.scores.predictions()}
    clips = evaluation.scores.clip_counts()
    names = evaluation.source.index.names()
    for video in sorted(evaluation.source.videos):
        line: dict[str, Any] = {"video": names[video]}
        if video in predicted:
            label, scores = predicted[video]
            best = np.argsort(-scores, kind="stable")[:_TOP]
            valid = bool(np.isfinite(scores).all())
            line |= {
                "label": classes[label],
                "predicted": classes[best[0]] if valid else None,
                "correct": bool(valid and best[0] == label),
                "top": [{"class": classes[i], "probability": float(scores[i])} for i in best] if valid else [],
                "clips": clips[video],
            }
        if video in reasons:
            line["error"] = reasons[video]
        yield line


def _per_class(evaluation: Evaluation, classes: tuple[str, ...]) -> str:
    rows = [["class", "videos", "top1"]]
    counts = evaluation.video["counts"]
    for name, count, accuracy in zip(classes, counts, evaluation.video["per_class"], strict=True):
        rows.append([name, str(count), "" if accuracy is None else f"{accuracy:.6f}"])
    return _csv(rows)


def _confusion(evaluation: Evaluation, classes: tuple[str, ...]) -> str:
    matrix = np.asarray(evaluation.video["confusion"]).tolist()
    rows = [["label \\ predicted", *classes]]
    return _csv(rows + [[name, *map(str, row)] for name, row in zip(classes, matrix, strict=True)])


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _draw_confusion(path: Path, evaluation: Evaluation, classes: tuple[str, ...]) -> None:
    """Draw the confusion matrix of videos; each row is a label, divided by its number of videos."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        print(f"warning: no confusion.png ({error}); install it with: pip install 'r3d-fast[plots]'", file=sys.stderr)
        return
    matrix = np.asarray(evaluation.video["confusion"], np.float64)
    counts = np.asarray(evaluation.video["counts"])[:, None]
    shares = np.divide(matrix, counts, out=np.zeros_like(matrix), where=counts > 0)
    named = len(classes) <= _MOST_NAMED
    side = min(16.0, 4.5 + 0.28 * len(classes)) if named else 12.0
    figure = Figure(figsize=(side, side * 0.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's videos")
    if named:
        # parse_math is off, as a $ in a name would make it a formula.
        shown = [name if len(name) <= 24 else f"{name[:23]}\u2026" for name in classes]
        axes.set_xticks(range(len(classes)), shown, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(classes)), shown, fontsize=8, parse_math=False)
    if len(classes) <= 16:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = shares[row, column] > 0.5
            text = f"{int(matrix[row, column])}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    top1 = evaluation.video["top1"]
    title = f"{evaluation.num_evaluated} of {evaluation.num_videos} videos"
    axes.set_title(title + ("" if top1 is None else f", top1 {100 * top1:.2f} %"))
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    with new_file(path) as file:
        figure.savefig(file, format="png")

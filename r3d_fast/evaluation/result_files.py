"""The files of an evaluation: figures, those of each class, confusion matrix, and the prediction for each video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.output.csv_table import csv_text
from pipelines.output.files import new_file, write_file
from pipelines.output.folders import check_own_files, make_folder
from r3d_fast.evaluation.evaluate import MANY_CLASSES, Evaluation, confusion_cells, evaluation_json
from r3d_fast.metrics import class_figures

_NAMES = ("figures.json", "per_class.csv", "confusion.csv", "predictions.jsonl", "confusion.png")
_TOP = 5  # classes named for each video
_MOST_DRAWN = 2000  # classes in the picture, which has about half as many pixels a side
_MOST_NAMED = 60  # classes whose names are drawn beside the matrix; more names would overlap


def write_evaluation(
    folder: Path, evaluation: Evaluation, classes: tuple[str, ...], *, hint: str = "choose another --out",
    picture: bool = True, about: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Write the files of `evaluation` to `folder`; returns their names.

    These are figures.json, per_class.csv, confusion.csv, predictions.jsonl and, with `picture` and up to 2000 classes,
    confusion.png. Each is written whole, or stays as it was. `about` are further values for figures.json. Raises
    UsageError, which ends with `hint`, where `folder` can't be written.
    """
    texts = {
        "figures.json": json.dumps({**(about or {}), **evaluation_json(evaluation, classes)}, indent=1) + "\n",
        "per_class.csv": _per_class(evaluation, classes),
        "confusion.csv": _confusion(evaluation, classes),
        "predictions.jsonl": "".join(json.dumps(line) + "\n" for line in predictions(evaluation, classes)),
    }
    make_folder(folder, hint)
    for name, text in texts.items():
        write_file(folder / name, text.encode(), hint, follow=False)
    if not picture or len(classes) > _MOST_DRAWN:
        return tuple(texts)
    _draw_confusion(folder / "confusion.png", evaluation, classes)
    return (*texts, "confusion.png")


def check_evaluation_folder(folder: Path, hint: str = "choose another --out") -> None:
    """Make `folder`, and raise the UsageError that `write_evaluation` would raise there, before the long work."""
    make_folder(folder, hint)
    check_own_files(folder, hint)
    for name in _NAMES:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name}: it is a folder; expected a file, or nothing; {hint}")


def predictions(evaluation: Evaluation, classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The prediction for each video as JSON values, in the order of the index, or the error of an unreadable one.

    Probabilities are the mean of the softmax of the video's clips; `label_probability` is that of the right class.
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
                "label_probability": float(scores[label]) if valid else None,
                "clips": clips[video],
            }
        if video in reasons:
            line["error"] = reasons[video]
        yield line


def _per_class(evaluation: Evaluation, classes: tuple[str, ...]) -> str:
    of_classes = class_figures(evaluation.video)
    rows = [["class", "videos", "top1", "precision", "f1"]]
    counts = map(str, evaluation.video["counts"])
    columns = (of_classes.recall, of_classes.precision, of_classes.f1)
    shares = (["" if value is None else f"{value:.6f}" for value in values] for values in columns)
    return csv_text(rows + [list(row) for row in zip(classes, counts, *shares, strict=True)])


def _confusion(evaluation: Evaluation, classes: tuple[str, ...]) -> str:
    if len(classes) >= MANY_CLASSES:
        cells = confusion_cells(evaluation.video)
        return csv_text([["label", "predicted", "videos"], *([classes[a], classes[b], str(n)] for a, b, n in cells)])
    matrix = np.asarray(evaluation.video["confusion"]).tolist()
    rows = [["label \\ predicted", *classes]]
    return csv_text(rows + [[name, *map(str, row)] for name, row in zip(classes, matrix, strict=True)])


def _draw_confusion(path: Path, evaluation: Evaluation, classes: tuple[str, ...]) -> None:
    """Draw the confusion matrix of videos; each row is a label, divided by its number of videos."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second to import
    from matplotlib.figure import Figure

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
    with new_file(path, follow=False) as file:
        figure.savefig(file, format="png")

"""The figures of an evaluation, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.plain_text import plain
from r3d_fast.metrics import class_figures, mean_top1_top5

if TYPE_CHECKING:
    from r3d_fast.evaluation.evaluate import Evaluation


def print_evaluation(evaluation: Evaluation, classes: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Pass the lines of a table to `say`: the protocol, the accuracy of clips and videos, then that of each class."""
    say(f"protocol: {evaluation.source.protocol()}")
    for name, result in (("clip", evaluation.clip), ("video", evaluation.video)):
        if result["top1"] is None or result["top5"] is None:
            continue
        say(
            f"{name:6} top1 {100 * result['top1']:6.2f} %   top5 {100 * result['top5']:6.2f} %   "
            f"loss {result['loss']:.4f}   {result['count']} {name}s"
        )
    mean = mean_top1_top5(evaluation.video)
    if mean is not None and evaluation.source.means_top1_and_top5:
        say(f"video  mean of top1 and top5 {100 * mean:6.2f} %")
    figures = class_figures(evaluation.video)
    if figures.balanced_accuracy is not None:
        say(
            f"video  balanced accuracy {_percent(figures.balanced_accuracy)}   macro F1 {_percent(figures.macro_f1)}   "
            f"always the largest class {_percent(figures.majority)}"
        )
    say(f"evaluated {evaluation.num_evaluated} of {evaluation.num_videos} videos: {evaluation.source}")
    shown = [plain(name) for name in classes]
    widest = max(map(len, shown))
    say(f"  {'class':{widest}}  videos  precision    recall        F1")
    of_classes = zip(shown, evaluation.video["counts"], figures.precision, figures.recall, figures.f1, strict=True)
    for name, count, *shares in of_classes:
        say(f"  {name:{widest}}  {count:6}  {'  '.join(_percent(share).rjust(8) for share in shares)}")


def _percent(share: float | None) -> str:
    """A fraction as percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:6.2f} %"


def print_means(figures: dict[str, dict[str, dict[str, float]]], splits: str, say: Callable[[str], None]) -> None:
    """Pass a line for clips and one for videos to `say`: the `figures` of mean_of_splits over the splits `splits`."""
    for kind, values in figures.items():
        shown = (
            f"{name} {100 * spread['mean']:6.2f} % ({100 * spread['low']:.2f} to {100 * spread['high']:.2f})"
            for name, spread in values.items()
        )
        say(f"mean of splits {splits}: {kind:6} {'   '.join(shown)}")

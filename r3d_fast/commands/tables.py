"""Tables for the terminal: the content of an index, the figures of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex
    from r3d_fast.evaluation.evaluate import Evaluation

_SHOWN = 10  # files named under each reason, and of those that are missing


def index_summary(index: VideoIndex) -> dict[str, Any]:
    """The content of the index, as JSON values."""
    frames = index.columns().num_frames
    left_out: dict[str, list[str]] = {}
    for item in index.quarantined:
        left_out.setdefault(item.reason, []).append(item.path)
    missing: dict[str, list[str]] = {}
    for lost in index.missing:
        missing.setdefault(lost.split, []).append(lost.name)
    labels = Counter(index.columns().label.tolist())
    return {
        "index": str(index.path),
        "root": str(index.root),
        "kind": index.kind,
        "videos": len(index),
        "classes": {name: labels[number] for number, name in enumerate(index.classes)},
        "splits": dict(index.counts("split")),
        "frames": int(frames.sum()),
        "frames_a_video": [int(frames.min()), float(np.median(frames)), int(frames.max())] if len(index) else [],
        "sizes": dict(index.counts("size")),
        "codecs": dict(index.counts("codec")),
        "notes": {note: count for note, count in index.counts("note") if note},
        "left_out": left_out,
        "lists": index.lists,
        "lists_split": index.lists_split,
        "missing": missing,
    }


def print_index(summary: dict[str, Any], say: Callable[[str], None]) -> None:
    """Pass the lines of a table of `summary`, which `index_summary` gave, to `say`."""

    def listed(counts: dict[str, int]) -> str:
        first = [f"{name} ({count})" for name, count in list(counts.items())[:6]]
        return ", ".join(first) + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")

    splits = ", ".join(f"{count} {split or 'without a split'}" for split, count in summary["splits"].items())
    say(f"videos   {summary['videos']} ({splits})" if splits else "videos   0")
    used = {name: count for name, count in summary["classes"].items() if count}
    say(f"classes  {len(summary['classes'])}: {listed(used)}")
    if summary["frames_a_video"]:
        low, middle, high = summary["frames_a_video"]
        say(f"frames   {summary['frames']} ({low} to {high} a video, median {middle:g})")
        say(f"sizes    {listed(summary['sizes'])}")
        say(f"codecs   {listed(summary['codecs'])}")
    if summary["notes"]:
        say(f"notes    {listed(summary['notes'])}")
    left_out = summary["left_out"]
    say(f"left out {sum(len(paths) for paths in left_out.values())}")
    for reason, paths in left_out.items():
        for path in paths[:_SHOWN]:
            say(f"  {reason}: {path}")
        if len(paths) > _SHOWN:
            say(f"  {reason}: and {len(paths) - _SHOWN} more")
    _print_missing(summary["missing"], summary["videos"], say)
    if summary["lists_split"] is not None:
        say(f"lists    split {summary['lists_split']} of {summary['kind']}")
    say(f"index    {summary['index']}")


def _print_missing(missing: dict[str, list[str]], videos: int, say: Callable[[str], None]) -> None:
    names = [name for found in missing.values() for name in found]
    if not names:
        return
    splits = ", ".join(f"{len(found)} {split}" for split, found in missing.items())
    say(f"missing  {len(names)} of {len(names) + videos} listed videos ({splits})")
    for name in names[:_SHOWN]:
        say(f"  {name}")
    if len(names) > _SHOWN:
        say(f"  and {len(names) - _SHOWN} more")


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
    say(f"evaluated {evaluation.num_evaluated} of {evaluation.num_videos} videos: {evaluation.source}")
    widest = max(map(len, classes))
    for name, accuracy in zip(classes, evaluation.video["per_class"], strict=True):
        say(f"  {name:{widest}}  {'no video' if accuracy is None else f'{100 * accuracy:6.2f} %'}")


def print_means(figures: dict[str, dict[str, dict[str, float]]], splits: str, say: Callable[[str], None]) -> None:
    """Pass a line for clips and one for videos to `say`: the `figures` of mean_of_splits over the splits `splits`."""
    for kind, values in figures.items():
        shown = (
            f"{name} {100 * spread['mean']:6.2f} % ({100 * spread['low']:.2f} to {100 * spread['high']:.2f})"
            for name, spread in values.items()
        )
        say(f"mean of splits {splits}: {kind:6} {'   '.join(shown)}")

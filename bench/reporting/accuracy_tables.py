"""What `bench studies accuracy` found, as Markdown: the last figures, who is told apart, the learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.reporting.text import UNKNOWN, markdown

ACCURACY_KIND = "accuracy"
_FIGURES = {"top1": (100.0, 1, " %"), "test loss": (1.0, 3, ""), "train loss": (1.0, 3, "")}
_MOST_ROWS = 10  # of the table of curves


def accuracy_tables(values: Mapping[str, Any]) -> list[str]:
    """The tables of a report, each after a line that says what it shows."""
    contenders = values.get("contenders", {})
    if not contenders:
        return []
    blocks = [_conditions(values), _last(contenders), _comparisons(values)]
    curves = _curves(contenders)
    return [*blocks, *([] if curves is None else ["Means of the seeds on the way there:", curves])]


def _conditions(values: Mapping[str, Any]) -> str:
    """One line: what was trained, on what, where."""
    settings, videos = values["settings"], list(values["videos"].values())
    clip = f"{settings['clip']['num_frames']}x{settings['augment']['size_px']}x{settings['augment']['size_px']}"
    epochs = f"{settings['train']['epochs']} epochs" if values["minutes"] is None else f"{values['minutes']:g} minutes"
    parts = [
        values["machine"],
        f"{values['data']}: {values['classes']} classes, {videos[0]} videos to train on and {videos[1]} to test",
        f"{settings['model']['name']} of width {settings['model']['width']}, clips of {clip}",
        f"batch {settings['loader']['batch_size']}, {epochs}, {_seeds(values)}",
        *([f"commit {values['commit']}"] if values["commit"] else []),
        f"`{values['command']}`",
    ]
    return "; ".join(parts) + ":"


def _seeds(values: Mapping[str, Any]) -> str:
    done = min(len(contender["curves"]) for contender in values["contenders"].values())
    return "1 seed" if done == 1 else f"{done} seeds"


def _last(contenders: Mapping[str, Any]) -> str:
    """A row a contender: its figures at the last evaluation, over the seeds."""
    rows = [["at the last evaluation", "top1 %, mean (low to high)", "deviation", "top1 % of each seed"]]
    rows[0] += ["test loss, mean (low to high)", "deviation", "train loss, mean (low to high)", "epochs"]
    for name, contender in contenders.items():
        last, ends = contender["last"], [curve[-1] for curve in contender["curves"].values()]
        row = [name, *_spread(last, "top1"), " ".join(f"{100 * end['top1']:.1f}" for end in ends)]
        row += [*_spread(last, "test loss"), _spread(last, "train loss")[0]]
        rows.append([*row, " ".join(dict.fromkeys(str(end["epoch"]) for end in ends))])
    return markdown(rows, right=range(1, len(rows[0])))


def _spread(last: Mapping[str, Any], figure: str) -> tuple[str, str]:
    """(mean with lowest and highest, standard deviation) of a figure."""
    scale, digits, _ = _FIGURES[figure]
    mean, low, high, deviation = (last[figure][key] for key in ("mean", "low", "high", "deviation"))
    shown = [f"{scale * value:.{digits}f}" for value in (mean, low, high)]
    known = UNKNOWN if deviation is None else f"{scale * deviation:.{digits}f}"
    return f"{shown[0]} ({shown[1]} to {shown[2]})", known


def _comparisons(values: Mapping[str, Any]) -> str:
    """A line a pair and figure, after the rule by which they are told apart; last what PyTorch was given."""
    lines = [_compared(item) for item in values["comparisons"]]
    same = values.get("the same in PyTorch")
    if same is not None:
        lines.append(
            f"- PyTorch was given the same clips: {same['batches equal']} batches with equal SHA-256. Its first loss "
            f"differs by {same['first loss, largest difference as a share']:.1g} of it."
        )
    if not lines:
        return ""
    seeds = len(values["comparisons"][0]["differences by seed"])
    percent = 100 * values["told apart by chance"]
    by_chance = f"{percent:.0f}" if percent >= 1 else "fewer than 1"
    rule = (
        "Two are told apart where the ranges of their seeds do not overlap. "
        f"With {seeds} seeds chance alone does that in {by_chance} of 100 comparisons."
    )
    return "\n".join(["One seed tells nothing apart: take more." if seeds == 1 else rule, "", *lines])


def _compared(item: Mapping[str, Any]) -> str:
    """The line of a pair and figure."""
    scale, digits, unit = _FIGURES[item["figure"]]
    differences = " ".join(f"{scale * value:+.{digits}f}" for value in item["differences by seed"])
    mean = f"{scale * item['mean difference']:+.{digits}f}{unit}"
    what = f"- {item['figure']}, {item['contender']} beside {item['beside']}: "
    if len(item["differences by seed"]) == 1:
        return f"{what}{mean}"
    return f"{what}**{'' if item['told apart'] else 'not '}told apart**, {mean} (seed by seed {differences})"


def _curves(contenders: Mapping[str, Any]) -> str | None:
    """A row an evaluation, no more than `_MOST_ROWS`; None where the contenders were not evaluated at equal steps."""
    every = [curve for contender in contenders.values() for curve in contender["curves"].values()]
    if len({tuple(point["step"] for point in curve) for curve in every}) > 1 or len(every[0]) < 2:
        return None
    rows = [["epoch"]]
    for name in contenders:
        rows[0] += [f"{name}: train loss", "test loss", "top1 %"]
    count = len(every[0])
    chosen = sorted(
        {round((number + 1) * count / min(count, _MOST_ROWS)) - 1 for number in range(_MOST_ROWS)} & set(range(count))
    )
    for number in chosen:
        row = [str(every[0][number]["epoch"])]
        for contender in contenders.values():
            points = [curve[number] for curve in contender["curves"].values()]
            row += [_mean(points, figure) for figure in ("train loss", "test loss", "top1")]
        rows.append(row)
    return markdown(rows, right=range(len(rows[0])))


def _mean(points: Sequence[Mapping[str, Any]], figure: str) -> str:
    values = [point[figure] for point in points]
    if None in values:
        return UNKNOWN
    scale, digits, _ = _FIGURES[figure]
    return f"{scale * sum(values) / len(values):.{digits}f}"

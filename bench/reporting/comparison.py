"""Is B faster than A? Two reports of the same measurement, say of two commits on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, comb
from statistics import median
from typing import Literal

from bench.reporting.results import ThroughputReport
from pipelines.errors import UsageError

_LEAST_ROUNDS = 4  # With 3 rounds each, no outcome has p < 0.05.
_LEVEL = 0.05
_MARGIN = 0.02
Verdict = Literal["faster", "slower", "no difference", "too few rounds"]


@dataclass(frozen=True)
class Difference:
    """How B did against A: clips/s of B over those of A, for one contender in one run."""

    run: str
    workers: int
    name: str
    ratio: float  # of the medians
    low: float  # slowest round of B over fastest of A
    high: float  # fastest round of B over slowest of A
    verdict: Verdict


def compare(a: ThroughputReport, b: ThroughputReport) -> list[Difference]:
    """How B did against A, for each contender and run in both reports, in A's order.

    The rule: "faster" or "slower" where the rounds differ by a two-sided exact Mann-Whitney U test at p < 0.05 and the
    ratio of the medians is more than 2 % from 1; else "no difference". With fewer than 4 rounds in either report, "too
    few rounds". Rounds are not paired: the two reports were measured at different times. Each contender is tested by
    itself, so among 20 without any change one such verdict is no surprise. Raises UsageError for reports of two kinds.
    """
    if a.kind != b.kind:
        raise UsageError(f"results of {a.kind!r} and of {b.kind!r}; expected two of the same kind")
    of_b = dict(_rounds(b))
    differences = []
    for key, before in _rounds(a):
        after = of_b.get(key)
        if after is not None:
            ratio = median(after) / median(before)
            low, high = min(after) / max(before), max(after) / min(before)
            differences.append(Difference(*key, ratio, low, high, verdict(before, after)))
    return differences


def verdict(before: Sequence[float], after: Sequence[float]) -> Verdict:
    """Whether `after` is faster or slower than `before`, both clips/s a round, by the rule of `compare`."""
    if min(len(before), len(after)) < _LEAST_ROUNDS:
        return "too few rounds"
    ratio = median(after) / median(before)
    if abs(ratio - 1) <= _MARGIN or mann_whitney(before, after) >= _LEVEL:
        return "no difference"
    return "faster" if ratio > 1 else "slower"


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided exact p of the Mann-Whitney U test. Ties count half, rounded to the side of no difference."""
    wins = sum((y > x) + 0.5 * (y == x) for x in a for y in b)
    counts = u_distribution(len(a), len(b))
    tail = sum(counts[: ceil(min(wins, len(a) * len(b) - wins)) + 1])
    return min(1.0, 2 * tail / comb(len(a) + len(b), len(a)))


def u_distribution(m: int, n: int) -> list[int]:
    """In how many of the orders of m and n values U is 0, 1, ... m * n.

    They are the coefficients of the Gaussian binomial: the product over i = 1..m of (1 - x^(n+i)) / (1 - x^i).
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):
            counts[u] -= counts[u - n - i]
        for u in range(i, m * n + 1):
            counts[u] += counts[u - i]
    return counts


def unmatched(a: ThroughputReport, b: ThroughputReport) -> list[str]:
    """A line for each contender of a run that only one report has."""
    keys = {"A": dict(_rounds(a)), "B": dict(_rounds(b))}
    return [
        f"only in {one}: {_what(*key)}"
        for one, other in (("A", "B"), ("B", "A"))
        for key in keys[one]
        if key not in keys[other]
    ]


def warnings(a: ThroughputReport, b: ThroughputReport) -> list[str]:
    """Why the verdicts may say nothing of the code: a line for another machine and for each setting that differs."""
    lines = []
    machines = [
        ", ".join([report.machine.cpu, f"{report.machine.cpus} usable", *filter(None, [report.machine.gpu])])
        for report in (a, b)
    ]
    if machines[0] != machines[1]:
        lines.append(
            f"measured on two machines (A: {machines[0]}; B: {machines[1]}): differences say nothing of the code"
        )
    for key in dict.fromkeys([*a.settings, *b.settings]):
        values = [report.settings.get(key, "not given") for report in (a, b)]
        if values[0] != values[1]:
            lines.append(f"measured with two settings of {key} (A: {values[0]}; B: {values[1]})")
    return lines


def comparison_text(a: ThroughputReport, b: ThroughputReport) -> str:
    """The comparison for the terminal: warnings first, then a line a difference, then what only one report has."""
    differences = compare(a, b)
    labels = [_what(found.run, found.workers, found.name) for found in differences]
    width = max(map(len, labels), default=0)
    lines = [f"warning: {line}" for line in warnings(a, b)]
    lines.append(f"B ({b.commit or 'no commit'}) against A ({a.commit or 'no commit'}), clips/s of B over A:")
    for label, found in zip(labels, differences, strict=True):
        lines.append(
            f"  {label:<{width}}  {found.ratio:5.2f} x  ({found.low:.2f} to {found.high:.2f})  {found.verdict}"
        )
    if not differences:
        lines.append("  nothing that both measured")
    return "\n".join([*lines, *unmatched(a, b)])


def _rounds(report: ThroughputReport) -> Iterator[tuple[tuple[str, int, str], tuple[float, ...]]]:
    for run in report.runs:
        for figures in run.figures:
            yield (run.title, run.workers, figures.name), figures.clips_per_second


def _what(run: str, workers: int, name: str) -> str:
    return f"{run}, {workers} worker{'' if workers == 1 else 's'}: {name}"

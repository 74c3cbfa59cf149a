from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from reports import FULL, MACHINE, report, run

from bench.reporting import comparison as comparing
from bench.reporting.comparison import compare, comparison_text, mann_whitney, u_distribution, unmatched, verdict
from bench.reporting.figures import Figures


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (2, 3), (4, 4), (5, 3), (5, 6)])
def test_the_distribution_of_u_is_that_of_all_orders(m: int, n: int) -> None:
    counted: Counter[int] = Counter()
    for ours in itertools.combinations(range(m + n), m):
        theirs = set(range(m + n)) - set(ours)
        counted[sum(y > x for x in ours for y in theirs)] += 1
    assert u_distribution(m, n) == [counted[u] for u in range(m * n + 1)]


def test_p_is_the_share_of_orders_at_least_as_far_from_the_middle() -> None:
    rng = random.Random(3)
    for _ in range(20):
        values = rng.sample(range(1000), 9)
        a, b = values[:4], values[4:]
        u = sum(y > x for x in a for y in b)
        splits = list(itertools.combinations(values, 4))
        far = 0
        for ours in splits:
            other = sum(y > x for x in ours for y in values if y not in ours)
            far += abs(other - 10) >= abs(u - 10)
        assert mann_whitney(a, b) == pytest.approx(far / len(splits)) == pytest.approx(mann_whitney(b, a))
    assert mann_whitney([5.0] * 6, [5.0] * 6) == 1.0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 101, 99, 102, 98), (120, 121, 119, 125, 118), "faster"),
        ((120, 121, 119, 125, 118), (100, 101, 99, 102, 98), "slower"),
        ((100, 101, 99, 102), (103, 104, 105, 106), "faster"),  # p = 2 / 70
        ((100, 110, 90, 105, 95), (102, 108, 93, 104, 97), "no difference"),  # noise
        ((100, 110, 90, 105, 95), (100, 110, 90, 105, 95), "no difference"),
        ((100.0, 100.1, 99.9, 100.2, 99.8), (101, 101.1, 100.9, 101.2, 100.8), "no difference"),  # sure, but 1 %
        ((100, 80, 120, 90, 110), (130, 85, 140, 95, 125), "no difference"),  # 25 % more, within the noise
        ((100, 101, 99), (200, 201, 199), "too few rounds"),
        ((100, 101, 99, 100, 98), (200, 201, 199), "too few rounds"),
    ],
)
def test_verdicts(before: tuple[float, ...], after: tuple[float, ...], expected: str) -> None:
    assert verdict(before, after) == expected


def test_noise_alone_rarely_gets_a_verdict() -> None:
    rng = random.Random(1)
    found = Counter(
        verdict([rng.gauss(100, 10) for _ in range(6)], [rng.gauss(100, 10) for _ in range(6)]) for _ in range(1000)
    )
    assert found["no difference"] >= 940


def test_reports_are_compared_contender_by_contender() -> None:
    faster = tuple(1.5 * rate for rate in (100.0, 120.0, 110.0, 99.0, 101.0))
    other = replace(run(faster), figures=(*run(faster).figures[:2], Figures("OpenCV", (9.0,) * 5, 16)))
    a, b = report(run(), run(sampling="consecutive")), report(other, commit="fff9999")
    first, second = compare(a, b)
    assert (first.run, first.workers, first.name, first.verdict) == ("segments", 2, "r3d-fast", "faster")
    assert (first.ratio, first.low, first.high) == pytest.approx((1.5, 1.5 * 99 / 120, 1.5 * 120 / 99))
    assert (second.name, second.ratio, second.verdict) == ("decord", 1.0, "no difference")
    assert unmatched(a, b) == [
        "only in A: segments, 2 workers: decode only (ceiling)",
        *(f"only in A: consecutive, 2 workers: {name}" for name in run().names),
        "only in B: segments, 2 workers: OpenCV",
    ]
    text = comparison_text(a, b)
    assert "B (fff9999) against A (abc1234)" in text
    assert re.search(r"r3d-fast +1\.50 x +\(1\.24 to 1\.82\) +faster", text)
    assert all(line in text for line in unmatched(a, b))
    assert "warning" not in text
    assert "nothing that both measured" in comparison_text(a, report(replace(run(), workers=7)))


def test_other_machines_and_settings_are_warned_of() -> None:
    assert comparing.warnings(FULL, FULL) == []
    other = report(machine=replace(MACHINE, cpu="Other CPU"), settings={"batch_size": 16, "seed": 1})
    machine, batch, seed = comparing.warnings(report(), other)
    assert "two machines (A: Some CPU, 4 usable; B: Other CPU, 4 usable)" in machine
    assert batch == "measured with two settings of batch_size (A: 8; B: 16)"
    assert seed == "measured with two settings of seed (A: not given; B: 1)"
    assert comparison_text(report(), other).startswith(f"warning: {machine}\n")
    (gpu,) = comparing.warnings(report(), report(machine=replace(MACHINE, gpu="Tesla V100")))
    assert "two machines (A: Some CPU, 4 usable; B: Some CPU, 4 usable, Tesla V100)" in gpu

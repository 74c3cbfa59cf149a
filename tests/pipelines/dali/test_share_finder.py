from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipelines.dali.share_finder import BatchPlan, DecodingCosts, Routing, ShareFinder, is_shared_out


def find(
    *, pyav_ms: float, dali_ms: float | Sequence[float], workers: int = 4, batch_size: int = 16, takes: int = 16,
    base_ms: float = 2.0, remux_ms: float = 0.2, cpu_ms: float = 0.0, always_shares: bool = False,
    threads: Sequence[int] = (1,), real_ms: Sequence[float] = (1.0, 2.0),
) -> ShareFinder:  # fmt: skip
    """A finder that was told what a machine with these costs a clip would measure, the first batches slower.

    `dali_ms` has the cost for each number of threads; `real_ms` what a batch of the check takes, with DALI and without.
    """
    finder = ShareFinder(batch_size, workers, always_shares=always_shares, threads=threads)
    by_threads = dict(zip(threads, [dali_ms] if isinstance(dali_ms, float) else dali_ms, strict=True))
    for number in range(30):
        plan = finder.plan()
        if not plan.is_trial:
            break
        encoded = round(takes * plan.share)
        finder.note_clips(batch_size - encoded, pyav_ms * (batch_size - encoded) / 1000, encoded=False)
        finder.note_clips(encoded, remux_ms * encoded / 1000, encoded=True)
        warming = 300.0 if number % 3 == 0 else 0.0
        seconds = (base_ms + by_threads[plan.threads] * encoded + warming) / 1000
        finder.note_trial(encoded, seconds, (1.0 + cpu_ms * encoded + warming) / 1000)
    for _ in range(20):
        if finder.routing is None:
            plan = finder.plan()
            finder.note_batch(plan, real_ms[plan.check - 1] / 1000)
    return finder


def found(finder: ShareFinder) -> Routing:
    assert finder.routing is not None
    return finder.routing


@pytest.mark.parametrize(
    ("pyav_ms", "dali_ms", "workers", "decoder", "share"),
    [
        (8.0, 2.0, 4, "hybrid", 0.5),  # 4 processes and one NVDEC as fast as each other
        (8.0, 1.0, 4, "hybrid", 0.625),  # less than 2/3: a batch costs DALI 2 ms before it decodes anything
        (8.0, 6.0, 4, "hybrid", 0.25),
        (80.0, 0.1, 2, "dali", 1.0),
        (1.0, 40.0, 16, "pyav", 0.0),
    ],
)
def test_the_share_makes_both_take_equally_long(
    pyav_ms: float, dali_ms: float, workers: int, decoder: str, share: float
) -> None:
    routing = found(find(pyav_ms=pyav_ms, dali_ms=dali_ms, workers=workers))
    assert routing.decoder == decoder
    assert routing.share == pytest.approx(share, abs=1 / 16)


def test_the_warming_up_does_not_count() -> None:
    assert "DALI 0.10, CPU" in found(find(pyav_ms=80.0, dali_ms=0.1)).reason


def test_hybrid_shares_even_where_one_is_faster() -> None:
    slow, fast = (found(find(pyav_ms=a, dali_ms=b, always_shares=True)) for a, b in ((90.0, 0.1), (1.0, 90.0)))
    assert (slow.decoder, slow.share) == ("hybrid", 15 / 16)
    assert (fast.decoder, fast.share) == ("hybrid", 1 / 16)


def test_what_dali_does_not_take_is_not_shared() -> None:
    """Of 16 clips DALI takes 4: it gets all of them, and the share is of those."""
    routing = found(find(pyav_ms=20.0, dali_ms=1.0, takes=4))
    assert (routing.decoder, routing.share) == ("dali", 1.0)
    nothing = found(find(pyav_ms=20.0, dali_ms=1.0, takes=0))
    assert (nothing.decoder, nothing.share, nothing.reason) == ("pyav", 0.0, "DALI took no clip of the first batches")


def test_work_in_the_calling_process_counts_as_one_worker() -> None:
    none, one = (find(pyav_ms=8.0, dali_ms=8.0, workers=workers).routing for workers in (0, 1))
    assert none == one


# The CPU time of this process


def test_threads_that_spin_take_the_cores_of_the_workers() -> None:
    """Four cores decode a clip in 2 ms, NVDEC in 2 ms. If its threads keep two cores busy meanwhile, half is lost."""
    costs = DecodingCosts(16, 4, base=0.0, base_cpu=0.0, each=0.002, each_cpu=0.0, by_pyav=0.008, by_remuxing=0.0)
    assert costs.rate(0) == pytest.approx(500)
    assert costs.rate(8) == pytest.approx(1000)
    spinning = replace(costs, each_cpu=0.004)  # two threads for 2 ms
    assert spinning.rate(0) == pytest.approx(500)
    assert spinning.rate(8) == pytest.approx(16 / ((8 * 8 + 8 * 4) / 4 / 1000))  # 667
    assert replace(costs, each_cpu=0.008).rate(8) == pytest.approx(500)  # as if PyAV had decoded them
    assert replace(costs, base_cpu=0.064).rate(0) == pytest.approx(1000 / 3)  # also what a batch takes by itself


def test_what_nvdec_spins_away_is_left_to_pyav() -> None:
    idle, half, whole = (found(find(pyav_ms=8.0, dali_ms=2.0, cpu_ms=cpu)) for cpu in (0.0, 4.0, 9.0))
    assert (idle.decoder, half.decoder, whole.decoder) == ("hybrid", "hybrid", "pyav")
    assert "CPU time of this process 4.00" in half.reason
    assert "CPU time of this process 9.00" in whole.reason
    # More goes to DALI than an idle wait would make best: that spares nothing, and what PyAV keeps has fewer cores.
    assert half.share > idle.share


# The number of threads


@pytest.mark.parametrize(("dali_ms", "threads"), [((1.0, 0.8), 5), ((0.8, 1.0), 10), ((1.0, 1.0), 10)])
def test_the_better_number_of_threads_is_kept(dali_ms: tuple[float, float], threads: int) -> None:
    finder = find(pyav_ms=80.0, dali_ms=dali_ms, threads=(10, 5))
    routing = found(finder)
    assert (routing.decoder, routing.threads, finder.settled_threads) == ("dali", threads, threads)
    assert f"DALI {dali_ms[0]:.2f} by 10 threads, {dali_ms[1]:.2f} by 5 threads" in routing.reason
    assert str(routing).startswith(f"decoder dali, {threads} threads of DALI (clips/s expected: ")
    assert finder.plan() == BatchPlan(1.0, threads)


def test_each_number_of_threads_has_trials() -> None:
    finder = ShareFinder(16, 4, threads=(2, 1))
    assert finder.settled_threads == 2  # with which the pipeline starts
    trials = [BatchPlan(1.0, 2, is_trial=True)] * 3 + [BatchPlan(1.0, 1, is_trial=True)] * 3
    trials += [BatchPlan(0.0, 1, is_trial=True)] * 3
    assert [finder.plan() for _ in range(11)] == [*trials, BatchPlan(0.5, 1), BatchPlan(0.5, 1)]


@pytest.mark.parametrize(("took", "threads"), [((0.03, 0.02), 1), ((0.02, 0.03), 2)])
def test_with_a_decoder_that_is_set_only_the_threads_are_tried(took: tuple[float, float], threads: int) -> None:
    given = Routing("hybrid", 0.25, "as set")
    finder = ShareFinder(16, 4, routing=given, threads=(2, 1))
    for number in range(6):
        assert finder.routing is None
        assert finder.plan() == BatchPlan(0.25, (2, 1)[number // 3], is_trial=True)
    assert finder.plan() == BatchPlan(0.25, 1)
    for number in range(6):
        warming = number % 3 == 0
        finder.note_trial(4, took[number // 3] + warming, 0.0)
    reason = f"as set; ms a batch by threads: 2: {1000 * took[0]:.1f}, 1: {1000 * took[1]:.1f}"
    assert finder.routing == replace(given, reason=reason, threads=threads)
    assert finder.plan() == BatchPlan(0.25, threads)


def test_without_a_choice_nothing_is_tried() -> None:
    for given in (Routing("dali", 1.0, "as set"), Routing("pyav", 0.0, "as set")):
        assert ShareFinder(16, 4, routing=given, threads=(3,)).routing is given
        assert ShareFinder(16, 4, routing=given, threads=(3,)).plan() == BatchPlan(given.share, 3)
    pyav = Routing("pyav", 0.0, "no GPU")
    assert ShareFinder(16, 4, routing=pyav, threads=(2, 1)).routing is pyav


# The check beside PyAV


def test_dali_stays_unless_its_batches_were_clearly_slower() -> None:
    for real_ms in ((50.0, 60.0), (50.0, 50.0), (50.0, 48.0)):  # the last differ as chance makes equal ones differ
        routing = found(find(pyav_ms=8.0, dali_ms=2.0, real_ms=real_ms))
        assert routing.decoder == "hybrid"
        assert routing.reason.endswith(f"; then a batch took 50.0 ms by hybrid, {real_ms[1]:.1f} ms by pyav")


@pytest.mark.parametrize(
    ("pyav_ms", "dali_ms", "workers", "decoder"), [(8.0, 2.0, 4, "hybrid"), (80.0, 0.1, 2, "dali")]
)
def test_dali_is_given_up_if_its_batches_were_slower(
    pyav_ms: float, dali_ms: float, workers: int, decoder: str
) -> None:
    finder = find(pyav_ms=pyav_ms, dali_ms=dali_ms, workers=workers, real_ms=(60.0, 50.0))
    routing = found(finder)
    assert (routing.decoder, routing.share, routing.threads) == ("pyav", 0.0, None)
    assert routing.reason.endswith(
        f"; then a batch took 60.0 ms by {decoder}, 50.0 ms by pyav, so {decoder} was given up"
    )
    assert finder.plan() == BatchPlan(0.0, 1)


def checking(repeats: int = 1) -> ShareFinder:
    """A finder in its check: the trials chose hybrid."""
    finder = ShareFinder(16, 4, repeats=repeats)
    for number in range(6):
        share = finder.plan().share
        finder.note_clips(16, 0.128 if not share else 0.0032, encoded=share == 1.0)
        finder.note_trial(round(16 * share), 0.034 if share else 0.002, 0.0)
        assert finder.routing is None, number
    return finder


def test_the_first_batch_of_each_half_and_a_straggler_do_not_count() -> None:
    finder = checking()
    hybrid = finder.plan()
    assert hybrid == BatchPlan(0.5, 1, check=1)
    finder.note_batch(BatchPlan(0.5, 1), 9.0)  # it was planned before the trials were over
    for seconds in (9.0, 0.05, 9.0, 0.04):
        assert finder.plan() == hybrid
        finder.note_batch(hybrid, seconds)
    alone = finder.plan()
    assert alone == BatchPlan(0.0, 1, check=2)
    finder.note_batch(hybrid, 9.0)  # it was planned before this half began
    for seconds in (0.001, 0.06, 0.06, 0.001):
        assert finder.routing is None
        finder.note_batch(alone, seconds)
    assert found(finder).reason.endswith("; then a batch took 50.0 ms by hybrid, 60.0 ms by pyav")
    finder.note_batch(alone, 0.001)
    assert found(finder).decoder == "hybrid"


def test_a_half_begins_anew_where_loading_does() -> None:
    finder = checking()
    hybrid = finder.plan()
    for seconds in (9.0, 9.0, 9.0):
        finder.note_batch(hybrid, seconds)
    finder.forget_planned()
    finder.note_batch(hybrid, None)
    for seconds in (9.0, 0.05, 0.05):
        assert finder.plan() == hybrid
        finder.note_batch(hybrid, seconds)
    finder.note_batch(hybrid, 0.05)
    alone = finder.plan()
    assert alone.check == 2
    for seconds in (9.0, 0.06, None, 9.0, 0.01, 0.01, 0.01):
        assert finder.plan() == alone
        finder.note_batch(alone, seconds)
    assert found(finder).reason.endswith("50.0 ms by hybrid, 10.0 ms by pyav, so hybrid was given up")


def test_batches_that_share_their_decoding_are_measured_together() -> None:
    """The first one of a round waits for all of it; a batch takes the mean of them."""
    finder = checking(repeats=2)
    for batch_seconds in ((9.0, 9.0), *[(0.10, 0.02)] * 3, (9.0, 9.0), *[(0.09, 0.01)] * 3):
        plan = finder.plan()  # once for the round
        for seconds in batch_seconds:
            finder.note_batch(plan, seconds)
    assert found(finder).reason.endswith("60.0 ms by hybrid, 50.0 ms by pyav, so hybrid was given up")


def test_a_hybrid_that_is_wanted_is_not_given_up() -> None:
    routing = found(find(pyav_ms=8.0, dali_ms=2.0, real_ms=(60.0, 50.0), always_shares=True))
    assert routing.decoder == "hybrid"
    assert "then a batch" not in routing.reason


# Epochs that are left early


def test_trials_that_were_left_are_planned_again() -> None:
    finder = ShareFinder(16, 4)
    first, last = BatchPlan(1.0, 1, is_trial=True), BatchPlan(0.0, 1, is_trial=True)
    unknown = BatchPlan(0.5, 1)
    assert [finder.plan() for _ in range(8)] == [first] * 3 + [last] * 3 + [unknown] * 2
    finder.note_trial(16, 0.1, 0.0)
    finder.forget_planned()
    assert [finder.plan() for _ in range(6)] == [first] * 2 + [last] * 3 + [unknown]


def test_a_settled_routing_stands() -> None:
    finder = find(pyav_ms=8.0, dali_ms=2.0)
    routing = found(finder)
    assert [finder.plan() for _ in range(3)] == [BatchPlan(routing.share, 1)] * 3
    assert str(routing).startswith("decoder hybrid, 50 % of it by DALI (clips/s expected: pyav ")


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_a_share_of_a_batch_is_spread_over_its_rows(size: int) -> None:
    for part in range(size + 1):
        rows = [row for row in range(size) if is_shared_out(row, part / size)]
        assert len(rows) == part
        gaps = [b - a for a, b in itertools.pairwise(rows)]
        assert not gaps or max(gaps) - min(gaps) <= 1

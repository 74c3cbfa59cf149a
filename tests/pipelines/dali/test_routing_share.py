from __future__ import annotations

import itertools

import pytest

from pipelines.dali.routing import ShareFinder, is_shared_out


def find(
    *, pyav_ms: float, dali_ms: float, workers: int = 4, batch_size: int = 16, takes: int = 16, base_ms: float = 2.0,
    remux_ms: float = 0.2, always_shares: bool = False,
) -> ShareFinder:  # fmt: skip
    """A finder that was told what a machine with these costs a clip would measure, the first batches slower."""
    finder = ShareFinder(batch_size, workers, always_shares=always_shares)
    for number in range(20):
        share, trial = finder.plan()
        if not trial:
            break
        encoded = round(takes * share)
        finder.note_clips(batch_size - encoded, pyav_ms * (batch_size - encoded) / 1000, encoded=False)
        finder.note_clips(encoded, remux_ms * encoded / 1000, encoded=True)
        warming = 300.0 if number == 0 else 0.0
        finder.note_trial(encoded, (base_ms + dali_ms * encoded + warming) / 1000)
    return finder


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
    routing = find(pyav_ms=pyav_ms, dali_ms=dali_ms, workers=workers).routing
    assert routing is not None
    assert routing.decoder == decoder
    assert routing.share == pytest.approx(share, abs=1 / 16)


def test_the_warming_up_does_not_count() -> None:
    routing = find(pyav_ms=80.0, dali_ms=0.1).routing
    assert routing is not None
    assert "DALI 0.10" in routing.reason


def test_hybrid_shares_even_where_one_is_faster() -> None:
    slow, fast = (find(pyav_ms=pyav, dali_ms=dali, always_shares=True).routing for pyav, dali in ((90, 0.1), (1, 90)))
    assert slow is not None
    assert fast is not None
    assert (slow.decoder, slow.share) == ("hybrid", 15 / 16)
    assert (fast.decoder, fast.share) == ("hybrid", 1 / 16)


def test_what_dali_does_not_take_is_not_shared() -> None:
    """Of 16 clips DALI takes 4: it gets all of them, and the share is of those."""
    routing = find(pyav_ms=20.0, dali_ms=1.0, takes=4).routing
    assert routing is not None
    assert (routing.decoder, routing.share) == ("dali", 1.0)
    nothing = find(pyav_ms=20.0, dali_ms=1.0, takes=0).routing
    assert nothing is not None
    assert (nothing.decoder, nothing.share, nothing.reason) == ("pyav", 0.0, "DALI took no clip of the first batches")


def test_work_in_the_calling_process_counts_as_one_worker() -> None:
    none, one = (find(pyav_ms=8.0, dali_ms=8.0, workers=workers).routing for workers in (0, 1))
    assert none == one


def test_trials_that_were_left_are_planned_again() -> None:
    finder = ShareFinder(16, 4)
    assert [finder.plan() for _ in range(8)] == [(1.0, True)] * 3 + [(0.0, True)] * 3 + [(0.5, False)] * 2
    finder.note_trial(16, 0.1)
    finder.forget_planned()
    assert [finder.plan() for _ in range(6)] == [(1.0, True)] * 2 + [(0.0, True)] * 3 + [(0.5, False)]


def test_a_settled_routing_stands() -> None:
    finder = find(pyav_ms=8.0, dali_ms=2.0)
    assert finder.routing is not None
    assert [finder.plan() for _ in range(3)] == [(finder.routing.share, False)] * 3
    assert str(finder.routing).startswith("decoder hybrid, 50 % of it by DALI (clips/s expected: pyav ")


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_a_share_of_a_batch_is_spread_over_its_rows(size: int) -> None:
    for part in range(size + 1):
        rows = [row for row in range(size) if is_shared_out(row, part / size)]
        assert len(rows) == part
        gaps = [b - a for a, b in itertools.pairwise(rows)]
        assert not gaps or max(gaps) - min(gaps) <= 1

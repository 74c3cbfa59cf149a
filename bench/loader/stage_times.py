"""How long the stages of the clip loader take, one after the other in one process, with nothing beside it."""

from __future__ import annotations

from time import perf_counter

from bench.loader.contenders import ClipLoaderContender, Work
from bench.measuring.turns import WARM_BATCHES

_BATCHES = 12


def stage_times(work: Work) -> dict[str, float]:
    """Mean wall milliseconds of a clip by stage.

    `ship` is what a worker process adds: planning, looking up the index, telling the parent; `hand-over` what lies
    between DALI's output and the caller's array.
    """
    alone = _timed(ClipLoaderContender("alone", work, workers=0, threads=1))
    worker = _timed(ClipLoaderContender("worker", work, workers=1, threads=1))
    spent = sum(alone[stage] for stage in ("wait", "augment"))
    return {
        **{stage: alone[stage] for stage in ("read", "decode", "convert")},
        "ship": worker["ship"],
        "augment": alone["augment"],
        "hand-over": max(0.0, alone["whole"] - spent),
    }


def _timed(contender: ClipLoaderContender) -> dict[str, float]:
    """Milliseconds a clip of each stage, and of the `whole` loop; the contender is closed."""
    try:
        contender.make(WARM_BATCHES)
        before, begin = contender.stage_seconds(), perf_counter()
        clips = contender.make(_BATCHES)
        whole = perf_counter() - begin
        after = contender.stage_seconds()
    finally:
        contender.close()
    return {**{stage: 1000 * (after[stage] - before[stage]) / clips for stage in after}, "whole": 1000 * whole / clips}

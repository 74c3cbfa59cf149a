"""How many clips a second the loader gives, beside its ceiling and the loaders that a user would pick instead.

On a GPU the ways to decode stand beside each other: NVDEC, both, and CPU cores with the GPU left to augment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bench.loader.clip_check import try_clips
from bench.loader.contenders import Ceiling, Ours, Theirs, Work
from bench.loader.frame_check import check_frames
from bench.loader.handover import require_gpu
from bench.loader.peers import PYAV, Peer
from bench.measuring.gpu_use import GpuSampler
from bench.measuring.machine import commit, describe
from bench.measuring.turns import WARM_BATCHES, Contender, Pace, Say, Turn, bytes_per_clip, take_turns
from bench.reporting.results import BASE, FORMAT, KIND, Figures, Report, Run
from bench.videos.selection import Clips, clips_of, described
from pipelines.errors import EnvironmentProblem
from pipelines.specs import AugmentSpec, ClipSpec

DECODERS = ("auto", "pyav", "dali", "hybrid")  # of LoaderSpec.decoder
GRAPH = f"{BASE}, graph resize"
ON_GPU = {
    "dali": f"{BASE}, NVDEC",
    "hybrid": f"{BASE}, hybrid",
    "pyav": f"{BASE}, CPU decode, GPU augment",
    "auto": f"{BASE}, auto decodes",
}
_STAGE_BATCHES = 12


@dataclass(frozen=True)
class Settings:
    """What to measure. `data` None: clips of bench's own; each contender has `rounds` turns of `batches`."""

    data: Path | None = None
    videos: int | None = None  # no more than so many of them
    samplings: tuple[str, ...] = ("segments", "consecutive")
    workers: tuple[int, ...] = (1,)
    peers: tuple[Peer, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()  # peers that were asked for and are not installed, and the pip line
    repeats: tuple[int, ...] = ()  # loaders that take so many clips from a decode pass are measured too
    decoders: tuple[str, ...] = ()  # loaders with these values of loader.decoder are measured too
    device: str = "cpu"
    rounds: int = 7
    batches: int = 12
    batch_size: int = 16
    num_frames: int = 16
    size_px: int = 112


@dataclass(frozen=True)
class _Variant:
    """A loader of ours to measure; `options` of LoaderSpec. `exact`: its frames are PyAV's, bit for bit."""

    name: str
    work: Work
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True


def measure(settings: Settings, command: str, say: Say = lambda _: None) -> Report:
    """The report of a whole measurement; `command` is what it will say it was made by, `say` is told what goes on.

    Raises DataError where there are no clips, UsageError where they are fewer than a batch, EnvironmentProblem where
    the GPU that was asked for isn't there.
    """
    if settings.device != "cpu":
        require_gpu()
    left_out: dict[str, str] = {}
    with clips_of(settings.data, say, settings.videos) as clips:
        runs = tuple(
            _run(settings, clips, sampling, workers, say, left_out)
            for sampling in settings.samplings
            for workers in settings.workers
        )
        extra: dict[str, Any] = {
            "first batch, seconds after the start of Python": _first_batch_seconds(settings, clips),
            "index, files per CPU second": round(clips.index_files_per_cpu_second),
        }
        if left_out:
            extra["not measured"] = left_out
        values = {
            **described(settings.data, clips),
            "batch_size": settings.batch_size,
            "num_frames": settings.num_frames,
            "size_px": settings.size_px,
            "batches_a_turn": settings.batches,
            "rounds": settings.rounds,
            # Reports of before there was a choice have none.
            **({} if settings.device == "cpu" else {"device": settings.device}),
        }
    return Report(
        FORMAT, KIND, command, commit(Path(__file__).parent), describe(), values, runs,
        missing=dict(settings.missing), excluded=clips.excluded, extra=extra,
    )  # fmt: skip


def _run(settings: Settings, clips: Clips, sampling: str, workers: int, say: Say, left_out: dict[str, str]) -> Run:
    """All contenders at one sampling and number of workers; those that can't be measured go to `left_out`, with why."""
    where = f"{sampling}, {workers} workers"
    clip = ClipSpec.model_validate({"sampling": sampling, "num_frames": settings.num_frames})
    work = Work(clips.index, clip, AugmentSpec(size_px=settings.size_px), workers, settings.batch_size)
    say(f"{where}: comparing frames")
    variants = _variants(settings, work)
    frames = _check_frames(settings, work, variants, lambda text: say(f"{where}: {text}"))
    routed = {variant.name for variant in variants if not variant.exact}
    stages = {v.name: _stages(v.work) for v in variants if v.name in (BASE, GRAPH) and settings.device == "cpu"}
    with ExitStack() as opened:
        contenders: list[Contender] = []
        for variant in variants:
            contender = _open(variant, settings.device, frames, opened)
            if isinstance(contender, str):
                say(f"{where}: {variant.name} is left out: {contender}")
                left_out[f"{where}: {variant.name}"] = contender
            else:
                contenders.append(contender)
        others: list[Callable[[], Contender]] = [
            lambda: Ceiling(work),
            *(lambda peer=peer: Theirs(peer, work) for peer in settings.peers),
        ]
        for make in others:
            contenders.append(other := make())
            opened.callback(other.close)
        samplers = {c.name: GpuSampler() for c in contenders if isinstance(c, Ours) and settings.device != "cpu"}
        pace = Pace(settings.batches)
        turns = take_turns(
            contenders, settings.rounds, lambda _: pace, lambda text: say(f"{where}: {text}"), samplers
        )  # fmt: skip
        return Run(
            sampling, workers,
            tuple(
                replace(
                    _figures(contender.name, turns[contender.name], settings.num_frames),
                    stages_ms=stages.get(contender.name),
                    frames=frames[contender.name],
                    gpu=samplers[contender.name].use() if contender.name in samplers else None,
                    routing=contender.routing if contender.name in routed and isinstance(contender, Ours) else None,
                )
                for contender in contenders
            ),
        )  # fmt: skip


def _check_frames(settings: Settings, work: Work, variants: Sequence[_Variant], say: Say) -> dict[str, str]:
    """What the checks say of the frames of each contender, but for loaders of ours that aren't exact."""
    # Ours are the exact frames that peers are compared with, so they are compared with a plain full decode.
    ours = check_frames(PYAV, work.index, None, work.clip).text
    frames = {Ceiling.name: "", **{variant.name: ours for variant in variants if variant.exact}}
    for peer in settings.peers:
        check = check_frames(peer, work.index, None, work.clip)
        frames[peer.name] = check.text
        for what, paths in (("other frames of", check.wrong), ("nothing of", check.failed)):
            if paths:
                say(f"{peer.name} gives {what} {', '.join(paths)}")
    return frames


def _figures(name: str, turns: Sequence[Turn], num_frames: int) -> Figures:
    return Figures(
        name,
        tuple(turn.clips / turn.seconds for turn in turns),
        num_frames,
        tuple(turn.cpu_seconds / turn.clips for turn in turns),
        bytes_per_clip(turns),
    )


def _variants(settings: Settings, work: Work) -> list[_Variant]:
    """Our loaders, the usual one first."""
    if settings.device == "cpu":
        graph = replace(work, augment=AugmentSpec(size_px=settings.size_px, resize="graph"))
        return [
            _Variant(BASE, work),
            _Variant(GRAPH, graph),
            *(_Variant(f"{BASE}, {k} repeats", work, {"repeats": k}) for k in settings.repeats),
            *(_Variant(f"{BASE}, {d} decodes", work, {"decoder": d}, exact=False) for d in settings.decoders),
        ]
    return [
        _Variant(BASE, work, exact=False),
        *(
            _Variant(ON_GPU[decoder], work, {"decoder": decoder}, exact=False)
            for decoder in settings.decoders or ("dali", "hybrid", "pyav")
        ),
        *(_Variant(f"{BASE}, {k} repeats", work, {"repeats": k}, exact=False) for k in settings.repeats),
    ]


def _open(variant: _Variant, device: str, frames: dict[str, str], opened: ExitStack) -> Ours | str:
    """The contender, its clips checked; or why it can't be measured, but for the usual one, which raises that."""
    try:
        if not variant.exact:
            frames[variant.name] = try_clips(variant.name, variant.work, device, variant.options)
        contender = Ours(variant.name, variant.work, device=device, **variant.options)
        opened.callback(contender.close)
        return contender
    except EnvironmentProblem as problem:
        if variant.name == BASE:
            raise
        return str(problem)


def _stages(work: Work) -> dict[str, float]:
    """Mean wall milliseconds of a clip in each stage, one after the other in this process, with nothing beside it.

    `ship` is what a worker process adds: planning, looking up the index, telling the parent; `hand-over` what lies
    between DALI's output and the caller's array.
    """
    alone = _timed(Ours("alone", work, workers=0, threads=1))
    worker = _timed(Ours("worker", work, workers=1, threads=1))
    spent = sum(alone[stage] for stage in ("wait", "augment"))
    return {
        **{stage: alone[stage] for stage in ("read", "decode", "convert")},
        "ship": worker["ship"],
        "augment": alone["augment"],
        "hand-over": max(0.0, alone["whole"] - spent),
    }


def _timed(ours: Ours) -> dict[str, float]:
    """Milliseconds a clip of each stage, and of the whole loop."""
    try:
        ours.make(WARM_BATCHES)
        before, begin = ours.stage_seconds(), perf_counter()
        clips = ours.make(_STAGE_BATCHES)
        whole = perf_counter() - begin
        after = ours.stage_seconds()
    finally:
        ours.close()
    return {**{stage: 1000 * (after[stage] - before[stage]) / clips for stage in after}, "whole": 1000 * whole / clips}


def _first_batch_seconds(settings: Settings, clips: Clips) -> dict[str, float]:
    """How long a fresh Python takes to the first batch, imports and start of the workers included: a few tries."""
    code = (
        "import sys, time; begin = time.perf_counter(); sys.path[:] = eval(sys.argv[5])\n"
        "from pipelines import ClipLoader, LoaderSpec, VideoIndex\n"
        "index = VideoIndex.open(sys.argv[1], sys.argv[2])\n"
        "spec = LoaderSpec(batch_size=int(sys.argv[3]), workers=int(sys.argv[4]))\n"
        "device = {} if sys.argv[6] == 'cpu' else {'device': sys.argv[6]}\n"
        "with ClipLoader(index, loader=spec, split=None, train=True, **device) as loader:\n"
        "    next(iter(loader))\n"
        "    print(time.perf_counter() - begin)\n"
    )
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - a string is wanted
    arguments: list[Any] = [clips.index.path, clips.index.root, settings.batch_size, settings.workers[0], repr(paths)]
    arguments.append(settings.device)
    seconds = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout))
    return {"median": median(seconds), "low": min(seconds), "high": max(seconds)}

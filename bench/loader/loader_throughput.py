"""`bench loader throughput`: clips a second of the loader, its ceiling, and the loaders a user would pick instead.

On a GPU the ways to decode stand beside each other: NVDEC, both, and CPU cores with the GPU left to augment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.loader.clip_check import try_clips
from bench.loader.contenders import CeilingContender, ClipLoaderContender, PeerContender, Work
from bench.loader.first_batch import first_batch_seconds
from bench.loader.frame_check import check_frames
from bench.loader.handover import require_gpu, settle
from bench.loader.peers import PYAV, Peer
from bench.loader.stage_times import stage_times
from bench.measuring.gpu_use import GpuSampler
from bench.measuring.turns import GPU_TURN_SECONDS, Contender, Pace, Say, Turn, batches_lasting, take_turns
from bench.reporting.figures import BASE, MeasuredRun, figures_of
from bench.reporting.results import LOADER_KIND, ThroughputReport, throughput_report
from bench.reporting.text import count
from bench.videos.selection import VideoSelection, described, selected_videos
from pipelines.errors import EnvironmentProblem
from pipelines.specs import AugmentSpec, ClipSpec

DECODERS = ("auto", "pyav", "dali", "hybrid")  # of LoaderSpec.decoder
_CPU_BATCH, _GPU_BATCH = 16, 64
_CPU_BATCHES = 12  # of a turn
GRAPH = f"{BASE}, graph resize"
ON_GPU = {
    "dali": f"{BASE}, NVDEC",
    "hybrid": f"{BASE}, hybrid",
    "pyav": f"{BASE}, CPU decode, GPU augment",
    "auto": f"{BASE}, auto decodes",
}


@dataclass(frozen=True)
class LoaderSettings:
    """What to measure. `data` None: clips of bench's own; each contender has `rounds` turns of `batches`.

    `batches` None: on the CPU 12, on a GPU as many as last 2 seconds. `batch_size` None: on the CPU 16, on a GPU 64.
    """

    data: Path | None = None
    videos: int | None = None  # no more than so many of them
    selection: Path | None = None  # the folder where the choice of them is kept
    samplings: tuple[str, ...] = ("segments", "consecutive")
    workers: tuple[int, ...] = (1,)
    peers: tuple[Peer, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()  # peers that were asked for and are not installed, and the pip line
    repeats: tuple[int, ...] = ()  # loaders that take so many clips from a decode pass are measured too
    decoders: tuple[str, ...] = ()  # loaders with these values of loader.decoder are measured too
    threads: tuple[int, ...] = ()  # on a GPU: NVDEC alone is measured with each of these values of loader.threads
    device: str = "cpu"
    rounds: int = 7
    batches: int | None = None
    batch_size: int | None = None
    num_frames: int = 16
    size_px: int = 112

    @property
    def clips_a_batch(self) -> int:
        """The batch size that is measured."""
        return self.batch_size or (_CPU_BATCH if self.device == "cpu" else _GPU_BATCH)


@dataclass(frozen=True)
class _Variant:
    """A clip loader to measure; `options` of LoaderSpec. `exact`: its frames are PyAV's, bit for bit."""

    name: str
    work: Work
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True


def measure_loader(
    settings: LoaderSettings,
    command: str,
    say: Say = lambda _: None,
    keep: Callable[[ThroughputReport], None] = lambda _: None,
) -> ThroughputReport:
    """The report of a whole measurement, which names `command` as its own; `say` is told what goes on.

    `keep` is given the report of what is measured so far after each round. Raises DataError where there are
    no clips, UsageError where they are fewer than a batch, EnvironmentProblem where the GPU that was asked for isn't
    there.
    """
    if settings.device != "cpu":
        require_gpu()
    left_out: dict[str, str] = {}
    runs: list[MeasuredRun] = []
    with selected_videos(settings.data, say, settings.videos, settings.selection) as clips:
        values = _described_settings(settings, clips)

        def report(*measured: MeasuredRun, **extra: Any) -> ThroughputReport:
            extra |= {"not measured": left_out} if left_out else {}
            return throughput_report(
                LOADER_KIND,
                command,
                values,
                measured,
                missing=dict(settings.missing),
                excluded=clips.excluded,
                extra=extra,
            )

        def note(run: MeasuredRun) -> None:
            keep(report(*runs, run))

        for sampling in settings.samplings:
            for workers in settings.workers:
                run = _run(settings, clips, sampling, workers, say, left_out, note)
                runs.append(run)
        extra: dict[str, Any] = {
            "first batch, seconds after the start of Python": first_batch_seconds(
                clips.index, settings.clips_a_batch, settings.workers[0], settings.device
            ),
            "index, files per CPU second": round(clips.index_files_per_cpu_second),
        }
        return report(*runs, **extra)


def _described_settings(settings: LoaderSettings, clips: VideoSelection) -> dict[str, Any]:
    """What the report says of the settings; JSON values. Reports of before there was a choice of device have none."""
    on_cpu = settings.device == "cpu"
    batches = settings.batches or (_CPU_BATCHES if on_cpu else None)
    return {
        **described(settings.data, clips),
        "batch_size": settings.clips_a_batch,
        "num_frames": settings.num_frames,
        "size_px": settings.size_px,
        **({"seconds_a_turn": GPU_TURN_SECONDS} if batches is None else {"batches_a_turn": batches}),
        "rounds": settings.rounds,
        **({} if on_cpu else {"device": settings.device}),
    }


def _run(
    settings: LoaderSettings,
    clips: VideoSelection,
    sampling: str,
    workers: int,
    say: Say,
    left_out: dict[str, str],
    note: Callable[[MeasuredRun], None],
) -> MeasuredRun:
    """All contenders at one sampling and number of workers; those that can't be measured go to `left_out`, with why.

    `note` is given the figures so far after each round.
    """
    where = f"{sampling}, {count(workers, 'worker')}"
    clip = ClipSpec.model_validate({"sampling": sampling, "num_frames": settings.num_frames})
    work = Work(clips.index, clip, AugmentSpec(size_px=settings.size_px), workers, settings.clips_a_batch)
    say(f"{where}: comparing frames")
    variants = _variants(settings, work)
    frames = _check_frames(settings, work, variants, lambda text: say(f"{where}: {text}"))
    routed = {variant.name for variant in variants if not variant.exact}
    stages = {v.name: stage_times(v.work) for v in variants if v.name in (BASE, GRAPH) and settings.device == "cpu"}
    with ExitStack() as opened:
        contenders, problems = _open_contenders(settings, work, variants, frames, opened)
        for name, problem in problems.items():
            say(f"{where}: {name} is left out: {problem}")
            left_out[f"{where}: {name}"] = problem
        loaders = {c.name: c for c in contenders if isinstance(c, ClipLoaderContender)}
        samplers = {name: GpuSampler() for name in loaders} if settings.device != "cpu" else {}
        paces = _paces(settings, contenders)

        def measured(turns: dict[str, list[Turn]]) -> MeasuredRun:
            figures = tuple(
                figures_of(
                    name, turns[name], settings.num_frames,
                    stages_ms=stages.get(name),
                    frames=frames[name],
                    gpu=samplers[name].use() if name in samplers else None,
                    routing=loaders[name].routing if name in routed else None,
                )
                for name in turns
            )  # fmt: skip
            return MeasuredRun(sampling, workers, figures)

        turns = take_turns(
            contenders, settings.rounds, lambda name: paces[name], lambda text: say(f"{where}: {text}"), samplers,
            lambda turns: note(measured(turns)),
        )  # fmt: skip
        return measured(turns)


def _paces(settings: LoaderSettings, contenders: Sequence[Contender]) -> dict[str, Pace]:
    """What each contender makes in a turn; on a GPU, where nothing else was asked for, as much as lasts long enough."""
    if settings.device == "cpu" or settings.batches is not None:
        return {contender.name: Pace(settings.batches or _CPU_BATCHES) for contender in contenders}
    for contender in contenders:
        if isinstance(contender, ClipLoaderContender):
            settle(contender.loader, partial(contender.make, 1))
    return {contender.name: Pace(batches_lasting(GPU_TURN_SECONDS, contender)) for contender in contenders}


def _open_contenders(
    settings: LoaderSettings, work: Work, variants: Sequence[_Variant], frames: dict[str, str], opened: ExitStack
) -> tuple[list[Contender], dict[str, str]]:
    """(the contenders, closed with `opened`; the variants that can't be measured, by name, and why).

    What the checks say of clips goes to `frames`. Raises EnvironmentProblem where the usual loader can't be measured.
    """
    contenders: list[Contender] = []
    problems: dict[str, str] = {}
    for variant in variants:
        try:
            if not variant.exact:
                frames[variant.name] = try_clips(variant.name, variant.work, settings.device, variant.options)
            loader = ClipLoaderContender(variant.name, variant.work, device=settings.device, **variant.options)
        except EnvironmentProblem as problem:
            if variant.name == BASE:
                raise
            problems[variant.name] = str(problem)
            continue
        opened.callback(loader.close)
        contenders.append(loader)
    ceiling = CeilingContender(work)
    opened.callback(ceiling.close)
    contenders.append(ceiling)
    for peer in settings.peers:
        contender = PeerContender(peer, work)
        opened.callback(contender.close)
        contenders.append(contender)
    return contenders, problems


def _check_frames(settings: LoaderSettings, work: Work, variants: Sequence[_Variant], say: Say) -> dict[str, str]:
    """What the checks say of the frames of each contender; the others are checked when opened."""
    # Exact variants give the frames that peers are compared with, so they are compared with a plain full decode.
    exact = check_frames(PYAV, work.index, None, work.clip).text
    frames = {CeilingContender.name: "", **{variant.name: exact for variant in variants if variant.exact}}
    for peer in settings.peers:
        check = check_frames(peer, work.index, None, work.clip)
        frames[peer.name] = check.text
        for what, paths in (("other frames of", check.wrong), ("nothing of", check.failed)):
            if paths:
                say(f"{peer.name} gives {what} {', '.join(paths)}")
    return frames


def _variants(settings: LoaderSettings, work: Work) -> list[_Variant]:
    """The clip loaders to measure, the usual one first."""
    if settings.device == "cpu":
        graph = replace(work, augment=AugmentSpec(size_px=settings.size_px, resize="graph"))
        return [
            _Variant(BASE, work),
            _Variant(GRAPH, graph),
            *(_Variant(f"{BASE}, {k} repeats", work, {"repeats": k}) for k in settings.repeats),
            *(_Variant(f"{BASE}, {d} decodes", work, {"decoder": d}, exact=False) for d in settings.decoders),
        ]
    on_gpu: list[tuple[str, dict[str, Any]]] = []
    for decoder in settings.decoders or ("dali", "hybrid", "pyav"):
        several = settings.threads if decoder == "dali" else ()
        name, options = ON_GPU[decoder], {"decoder": decoder}
        on_gpu += [(f"{name}, {count(n, 'thread')}", {**options, "threads": n}) for n in several] or [(name, options)]
    return [
        _Variant(BASE, work, exact=False),
        *(_Variant(name, work, options, exact=False) for name, options in on_gpu),
        *(_Variant(f"{BASE}, {k} repeats", work, {"repeats": k}, exact=False) for k in settings.repeats),
    ]

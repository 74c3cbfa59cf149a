"""How many clips a second the loader gives, beside its ceiling and the loaders that a user would pick instead.

Contenders are measured in turns, A B C A B C, so that what slows the machine for a while slows all of them. A turn
begins when the one before has filled its queues and rests; then come batches that are not timed, which empty what was
made ahead and leave the contender in the state in which it delivers as fast as it produces.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from bench.clips import Clips, median_frames, open_clips
from bench.contenders import Ceiling, Contender, Ours, Theirs, Work, tree_cpu_seconds
from bench.dataset import make_clips
from bench.machine import commit, describe
from bench.peer_frames import check_frames
from bench.peers import PYAV, Peer
from bench.results import BASE, FORMAT, KIND, Figures, Report, Run
from pipelines.specs import AugmentSpec, ClipSpec

GRAPH = f"{BASE}, graph resize"
_WARM_BATCHES = 6  # more than any contender makes ahead
_OWN_CLIPS = 64
_REST_SECONDS = 0.1
_LONGEST_REST = 300  # of these
_STAGE_BATCHES = 12
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to measure. `data` None: clips of bench's own; each contender has `rounds` turns of `batches`."""

    data: Path | None = None
    samplings: tuple[str, ...] = ("segments", "consecutive")
    workers: tuple[int, ...] = (1,)
    peers: tuple[Peer, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()  # peers that were asked for and are not installed, and the pip line
    repeats: tuple[int, ...] = ()  # loaders that take so many clips from a decode pass are measured too
    rounds: int = 7
    batches: int = 12
    batch_size: int = 16
    num_frames: int = 16
    size_px: int = 112


def measure(settings: Settings, command: str, say: Say = lambda _: None) -> Report:
    """The report of a whole measurement; `command` is what it will say it was made by, `say` is told what goes on.

    Raises DataError where there are no clips, UsageError where they are fewer than a batch.
    """
    with _clips(settings, say) as clips:
        runs = tuple(
            _run(settings, clips, sampling, workers, say)
            for sampling in settings.samplings
            for workers in settings.workers
        )
        columns = clips.index.columns()
        extra = {
            "first batch, seconds after the start of Python": _first_batch_seconds(settings, clips),
            "index, files per CPU second": round(clips.index_files_per_cpu_second),
        }
        described = {
            "data": settings.data.name if settings.data else "bench's own clips",
            "videos": len(clips.index),
            "median_frames_a_video": median_frames(clips.index),
            "largest_frame_px": [int(columns.width.max()), int(columns.height.max())],
            "codecs": dict(clips.index.counts("codec")),
            "batch_size": settings.batch_size,
            "num_frames": settings.num_frames,
            "size_px": settings.size_px,
            "batches_a_turn": settings.batches,
            "rounds": settings.rounds,
        }
    return Report(
        FORMAT, KIND, command, commit(Path(__file__).parent), describe(), described, runs,
        missing=dict(settings.missing), excluded=clips.excluded, extra=extra,
    )  # fmt: skip


@contextmanager
def _clips(settings: Settings, say: Say) -> Iterator[Clips]:
    with tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as name:
        root = settings.data
        if root is None:
            root = Path(name) / "clips"
            say(f"making {_OWN_CLIPS} clips of 320x240")
            make_clips(root, _OWN_CLIPS)
        clips = open_clips(root, Path(name))
        say(f"{len(clips.index)} videos, {len(clips.excluded)} excluded")
        yield clips


def _run(settings: Settings, clips: Clips, sampling: str, workers: int, say: Say) -> Run:
    """All contenders at one sampling and number of workers."""
    clip = ClipSpec.model_validate({"sampling": sampling, "num_frames": settings.num_frames})
    work = Work(clips.index, clip, AugmentSpec(size_px=settings.size_px), workers, settings.batch_size)
    graph = replace(work, augment=AugmentSpec(size_px=settings.size_px, resize="graph"))
    say(f"{sampling}, {workers} workers: comparing frames")
    # Ours are the exact frames that peers are compared with, so they are compared with a plain full decode.
    ours = check_frames(PYAV, clips.index, None, clip).text
    frames = {BASE: ours, GRAPH: ours, Ceiling.name: ""}
    frames |= {f"{BASE}, {k} repeats": ours for k in settings.repeats}
    for peer in settings.peers:
        check = check_frames(peer, clips.index, None, clip)
        frames[peer.name] = check.text
        for what, paths in (("other frames of", check.wrong), ("nothing of", check.failed)):
            if paths:
                say(f"{sampling}, {workers} workers: {peer.name} gives {what} {', '.join(paths)}")
    stages = {name: _stages(variant) for name, variant in ((BASE, work), (GRAPH, graph))}
    with ExitStack() as open_contenders:
        contenders: list[Contender] = []
        makers: list[Callable[[], Contender]] = [
            lambda: Ours(BASE, work),
            lambda: Ours(GRAPH, graph),
            lambda: Ceiling(work),
            *(lambda k=k: Ours(f"{BASE}, {k} repeats", work, repeats=k) for k in settings.repeats),
            *(lambda peer=peer: Theirs(peer, work) for peer in settings.peers),
        ]
        for make in makers:
            contender = make()
            open_contenders.callback(contender.close)
            contenders.append(contender)
        turns = _take_turns(contenders, settings, lambda text: say(f"{sampling}, {workers} workers: {text}"))
    return Run(
        sampling, workers,
        tuple(
            Figures(
                contender.name,
                tuple(turn.clips / turn.seconds for turn in turns[contender.name]),
                settings.num_frames,
                tuple(turn.cpu_seconds / turn.clips for turn in turns[contender.name]),
                _bytes_per_clip(turns[contender.name]),
                stages.get(contender.name),
                frames[contender.name],
            )
            for contender in contenders
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class _Turn:
    clips: int
    seconds: float
    cpu_seconds: float
    bytes_read: int | None


def _take_turns(contenders: Sequence[Contender], settings: Settings, say: Say) -> dict[str, list[_Turn]]:
    """Each contender's turns; a round more than asked for is made, the first, and thrown away."""
    turns: dict[str, list[_Turn]] = {contender.name: [] for contender in contenders}
    for number in range(settings.rounds + 1):
        say(f"round {number} of {settings.rounds}" if number else "warming up")
        for contender in contenders:
            _wait_for_rest()
            contender.make(_WARM_BATCHES)
            read, cpu, begin = contender.bytes_read(), tree_cpu_seconds(), perf_counter()
            clips = contender.make(settings.batches)
            seconds = perf_counter() - begin
            after = contender.bytes_read()
            bytes_read = None if read is None or after is None else after - read
            if number:
                turns[contender.name].append(_Turn(clips, seconds, tree_cpu_seconds() - cpu, bytes_read))
    return turns


def _wait_for_rest() -> None:
    """Return when the processes below this one have nothing left to do, or after a time in which any would be done."""
    for _ in range(_LONGEST_REST):
        before = tree_cpu_seconds()
        sleep(_REST_SECONDS)
        if tree_cpu_seconds() - before < 0.2 * _REST_SECONDS:
            return


def _bytes_per_clip(turns: Sequence[_Turn]) -> float | None:
    counted = [turn.bytes_read / turn.clips for turn in turns if turn.bytes_read is not None]
    return median(counted) if counted else None


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
        ours.make(_WARM_BATCHES)
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
        "with ClipLoader(index, loader=spec, split=None, train=True) as loader:\n"
        "    next(iter(loader))\n"
        "    print(time.perf_counter() - begin)\n"
    )
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - a string is wanted
    arguments: list[Any] = [clips.index.path, clips.index.root, settings.batch_size, settings.workers[0], repr(paths)]
    seconds = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout))
    return {"median": median(seconds), "low": min(seconds), "high": max(seconds)}

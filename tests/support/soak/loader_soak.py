"""The loader under fire: its decoding processes are killed and stopped at random, and each batch is compared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import perf_counter

from loading import content, make

from pipelines.index.video_index import VideoIndex
from soak.usage import Usage

_BATCH, _WORKERS = 8, 2
_HANGS_AFTER = 3.0  # seconds without a sign after which a stopped process is replaced
_NOTES = 50  # times at which memory and files are noted


@dataclass(frozen=True)
class LoaderSoak:
    """What became of it: clips given, processes killed and stopped, batches that differ, seconds, `usage`."""

    clips: int
    kills: int
    stops: int
    different: int
    seconds: float
    usage: Usage


def soak_loader(
    index: VideoIndex, clips: int, *, seed: int, every: int, say: Callable[[str], None] = print
) -> LoaderSoak:
    """Load `clips` clips of all videos, and hit a decoding process about once in `every` batches; a tenth are stopped.

    The same batches are made in this process, without others, and compared bit for bit: pixels, labels, order.
    """
    draw, usage, begin = Random(seed), Usage(), perf_counter()
    given = kills = stops = different = 0
    with (
        make(index, batch_size=_BATCH, seed=seed) as calm,
        make(index, batch_size=_BATCH, seed=seed, workers=_WORKERS, timeout_seconds=_HANGS_AFTER) as hit,
    ):
        epoch = 0
        while given < clips:
            for expected, batch in zip(calm.epoch(epoch), hit.epoch(epoch), strict=True):
                different += content([expected]) != content([batch])
                if given // max(1, clips // _NOTES) >= len(usage.done):
                    usage.note(given, [os.getpid(), *hit.worker_pids])
                    say(f"{given} clips, {kills} killed, {stops} stopped, {different} batches differ")
                given += len(batch.labels)
                if draw.random() < 1 / every:
                    number = signal.SIGSTOP if draw.random() < 0.1 else signal.SIGKILL
                    os.kill(draw.choice(hit.worker_pids), number)
                    stops += number == signal.SIGSTOP
                    kills += number == signal.SIGKILL
            epoch += 1
    return LoaderSoak(given, kills, stops, different, perf_counter() - begin, usage)

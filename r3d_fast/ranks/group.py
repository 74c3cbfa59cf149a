"""The ranks of a job work as one group: they average gradients, add up figures, and share errors and signals.

A rank is one of the processes that `python -m paddle.distributed.launch` starts; environment variables tell each its
number. A process that was not launched like that is a group of one, for which nothing here has to be done.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipelines.errors import EnvironmentProblem, ExitCode, R3DFastError, UsageError
from pipelines.loader import BadClip
from pipelines.specs import ShardSpec
from r3d_fast.backend.memory import is_out_of_memory
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.snapshot import Arrays
from r3d_fast.metrics import ClassificationMetrics
from r3d_fast.ranks.control_channel import Control, open_control
from r3d_fast.ranks.launcher import rank_and_count, tell_launcher
from r3d_fast.version import __version__

_NAMES = ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ENDPOINTS")

_LAST_WORDS_SECONDS = 2.5  # for a last message: Paddle's launcher kills a process 3 s after SIGTERM


@dataclass(frozen=True)
class News:
    """What the ranks tell each other after a step.

    `bad`: clips that could not be read, on any rank. `stop`: whether any rank was asked to stop. `save`: whether a
    checkpoint is due, and `seconds`: how long the run has taken; both by the clock of the first rank. `io_retries`: how
    often the loaders have read a file again after an error of the system.
    """

    bad: tuple[BadClip, ...]
    stop: bool
    save: bool
    seconds: float
    io_retries: int = 0


class Group:
    """The ranks of a job, as one of them sees them. `Group()` is a single process.

    All ranks call the methods in the same order. These raise RankLost where another rank is gone or hangs, RankFailed
    where it has ended with an error.
    """

    def __init__(self, index: int = 0, count: int = 1, local_count: int = 1, control: Control | None = None) -> None:
        self.index, self.count = index, count
        self.local_count = local_count  # ranks on this machine
        self._control = control

    @property
    def is_first(self) -> bool:
        """Whether this is the first rank, the only one that writes files and shows messages."""
        return self.index == 0

    @property
    def shard(self) -> ShardSpec:
        """The shard of the data set from which this rank takes its clips."""
        return ShardSpec(index=self.index, count=self.count)

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._control is None:
            return
        if error is None:
            self._control.leave(ExitCode.OK, "")
        elif isinstance(error, R3DFastError):
            self._control.leave(error.exit_code, str(error))
        else:
            code = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.INTERNAL
            self._control.leave(code, f"{type(error).__name__}: {error}")

    def connect(self, device: str) -> None:
        """Set up Paddle's collectives: NCCL between GPUs, gloo between CPUs; `device` is "cpu" or "gpu"."""
        if self._control is None:
            return
        paddle = import_paddle()
        if paddle.distributed.is_initialized():
            return
        master = json.loads(self.from_first(lambda: json.dumps(_master()).encode()))
        os.environ["PADDLE_MASTER"] = master
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if device == "cpu" else "nccl"
        with redirect_stderr(io.StringIO()):  # Paddle lists flags that differ from its defaults; the user set none
            paddle.distributed.init_parallel_env()

    def exchange(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, in the order of the ranks, on every rank."""
        if self._control is None:
            return [value]
        parts = self._control.gather(json.dumps(value).encode())
        values: list[Any] = json.loads(self._control.broadcast(b"[" + b",".join(parts) + b"]"))
        return values

    def gather(self, payload: bytes) -> list[bytes]:
        """The payloads of all ranks, in the order of the ranks, on the first rank; an empty list on the others."""
        return [payload] if self._control is None else self._control.gather(payload)

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """The result of `make` on every rank; `make` is called on the first rank only."""
        if self._control is None:
            return make()
        return self._control.broadcast(make() if self.is_first else b"")

    def check(self) -> None:
        """Raise if another rank has ended or is gone. Does not wait for the other ranks."""
        if self._control is not None:
            self._control.check(time.monotonic())

    def require_equal(self, **values: str) -> None:
        """Raise UsageError if one of `values` is not the same on all ranks."""
        for rank, theirs in enumerate(self.exchange(values)):
            for key, value in values.items():
                if theirs[key] != value:
                    raise UsageError(
                        f"{key} is {theirs[key]} on rank {rank} and {value} on rank {self.index}; expected the same"
                    )

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return any(self.exchange(flag))

    def share(self, news: News) -> News:
        """The news of all ranks together, the same on every rank."""
        if self._control is None:
            return news
        own = [[[c.video_id, c.reason] for c in news.bad], news.stop, news.save, news.seconds, news.io_retries]
        parts = self.exchange(own)
        bad = tuple(BadClip(video, reason) for part in parts for video, reason in part[0])
        save, seconds = parts[0][2:4]
        return News(bad, any(part[1] for part in parts), save, seconds, sum(part[4] for part in parts))

    def merge(self, metrics: Sequence[ClassificationMetrics]) -> list[ClassificationMetrics]:
        """Each of `metrics` with the counts of all ranks added; every rank gives the same number of them."""
        if self._control is None:
            return list(metrics)
        merged = []
        for states in zip(*self.exchange([one.state() for one in metrics]), strict=True):
            whole = ClassificationMetrics(metrics[0].num_classes)
            for state in states:
                whole.merge(ClassificationMetrics.of(whole.num_classes, state))
            merged.append(whole)
        return merged

    def total(self, rows: int) -> int:
        """The sum of `rows` over all ranks."""
        return sum(self.exchange(rows))

    def add_up(self, sums: Sequence[Any], means: Sequence[Any]) -> None:
        """Replace `sums` by their sums over all ranks and `means` by their means, in place; all are float32.

        The results are the same on every rank to the last bit.
        """
        if self._control is None:
            return
        paddle = import_paddle()
        with paddle.no_grad():
            parts = [tensor.reshape([-1]) for tensor in sums]
            parts += [(tensor / self.count).reshape([-1]) for tensor in means]
            flat = paddle.concat(parts)
            self._collective(partial(paddle.distributed.all_reduce, flat))
            start = 0
            for tensor in (*sums, *means):
                size = int(np.prod(tensor.shape))
                paddle.assign(flat[start : start + size].reshape(tensor.shape), output=tensor)
                start += size

    def wait(self, event: Any) -> None:
        """Return once the GPU has reached `event`. Raises if a rank is lost: the GPU would wait for it for ever."""
        if self._control is None:
            event.synchronize()
            return
        start = time.monotonic()
        while not event.query():
            self._control.check(start)
            time.sleep(0.0002)

    def copy_first(self, tensors: Sequence[Any]) -> None:
        """Replace the values of `tensors` by those of the first rank."""
        if self._control is None:
            return
        paddle = import_paddle()
        for tensor in tensors:
            self._collective(partial(paddle.distributed.broadcast, tensor, src=0))

    def _collective(self, call: Callable[[], Any]) -> None:
        """Call one of Paddle's collectives. On a CPU it is done then; on a GPU it is only started (see `wait`)."""
        assert self._control is not None
        try:
            call()
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, R3DFastError) or is_out_of_memory(error):
                raise
            lines = str(error).strip().splitlines()
            self._control.blame(lines[-1] if lines else type(error).__name__)


def join_group(timeout: float = 30.0) -> Group:
    """The group of the job that this process was launched for. Use it in a `with` block.

    `timeout`: seconds without a sign of life after which a rank counts as lost. Raises EnvironmentProblem where another
    rank does not connect.
    """
    index, count = rank_and_count()
    if count == 1:
        return Group()
    missing = [name for name in _NAMES if not os.environ.get(name)]
    if missing:
        raise EnvironmentProblem(
            f"{', '.join(missing)} not set in the environment, though this is one of {count} processes; start them "
            "with r3d-fast train --nproc N or with python -m paddle.distributed.launch"
        )
    host, _, port = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].rpartition(":")
    local_count = int(os.environ.get("PADDLE_LOCAL_SIZE", count))
    with suppress(ValueError):  # only the main thread can set a signal handler
        signal.signal(signal.SIGTERM, _end_soon)
    group = Group(index, count, local_count, open_control(index, count, (host, int(port)), timeout, __version__))
    tell_launcher(f"pid-{index}", str(os.getpid()))
    return group


def _end_soon(number: int, frame: Any) -> None:
    """End this process a little later, so that it can still say why the job ends.

    Paddle's launcher sends SIGTERM to all ranks when one of them ends. This handler is for the time outside steps.
    """
    timer = threading.Timer(_LAST_WORDS_SECONDS, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def _master() -> str:
    """The address, as host:port, for Paddle's own store.

    It is PADDLE_MASTER, unless that is missing or is where the store of this group listens: then it is a free port of
    the same host.
    """
    ours = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0]
    launchers = os.environ.get("PADDLE_MASTER")
    if launchers and launchers != ours:
        return launchers
    host = ours.rpartition(":")[0]
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def pack(values: Any, arrays: Arrays) -> bytes:
    """JSON values and arrays as bytes, to be sent to another rank."""
    text = json.dumps(values).encode()
    return len(text).to_bytes(8, "big") + text + (save_tensors(arrays) if arrays else b"")


def unpack(payload: bytes) -> tuple[Any, Arrays]:
    """The values and arrays that `pack` made `payload` of."""
    end = 8 + int.from_bytes(payload[:8], "big")
    return json.loads(payload[8:end]), load_tensors(payload[end:]) if len(payload) > end else {}

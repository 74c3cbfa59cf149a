"""The child process of a trial: evaluates and trains on a few clips of random numbers, and says what each size took.

It does what a run does, in the same order of memory: the graph of an evaluation stays while training goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pipelines.machine.memory import end_first_without_memory, forget_peak_memory, peak_memory
from r3d_fast.acceleration.cpu import forget_traced, traced
from r3d_fast.backend.memory import free_memory, is_out_of_memory
from r3d_fast.backend.paddle import choose_device, import_paddle
from r3d_fast.backend.precision import Precision, choose_data_format, choose_precision
from r3d_fast.config.config import Config, config_from_json
from r3d_fast.learning.learner import Learner, model_to_train, step_on_noise
from r3d_fast.models.classifier import evaluating
from r3d_fast.planning.trial import Failure, Reading

_SIZES = (1, 2, 4)  # clips of a training batch, in turn
_EVALUATED = 4  # clips; of one size only, as a graph keeps memory for each
_ENOUGH_SECONDS = 0.4  # no larger size is tried after a step that took longer
# What CUDA, cuDNN and cuBLAS take of a GPU besides Paddle's allocator: about 0.5 GB on a card of Volta or later.
_GPU_LIBRARIES = 600 * 2**20


def main(descriptor: int) -> None:
    """Do the trial that the parent, at the other end of the socket `descriptor`, asks for, and send what comes of it.

    Sends (subject, Reading) for each size, a Failure where it fails, and None at the end.
    """
    # Memory that a smaller size has freed must not count for the next one: see `keep_freed_memory`.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(128 * 2**10))
    end_first_without_memory()
    connection = Connection(descriptor)
    task = connection.recv()
    try:
        _try(config_from_json(task["config"]), task["classes"], task["device"], connection.send)
    except Exception as error:  # whatever fails here, the parent says what it means for the run
        lines = str(error).strip().splitlines() or [type(error).__name__]
        connection.send(Failure(lines[-1], isinstance(error, MemoryError) or is_out_of_memory(error)))
    connection.send(None)


def _try(config: Config, classes: int, device: str, send: Callable[[Any], None]) -> None:
    """Evaluate and train the model of `config`, for `classes` classes, in batches of several sizes."""
    choose_device(device, config.train.gpu_wait)
    precision = choose_precision(config.train.precision, device, config.train.amp_level)
    config = config.in_data_format(choose_data_format(config.model.data_format, precision, device))
    model = model_to_train(config.model, classes, config.train.seed, config.init)
    learner = Learner(model, config.optimizer, config.train, precision, device)
    evaluate = _evaluating(learner.model, precision, device)
    send(("evaluation", Reading(0, 0.0, *_memory(device))))
    _report("evaluation", _EVALUATED, _on_noise(evaluate, config, precision, _EVALUATED), device, send)
    forget_traced(learner.model)
    for clips in _SIZES:
        step = step_on_noise(learner, clips, config.clip, config.augment.size_px)
        seconds = _report("training", clips, step, device, send)
        if seconds > _ENOUGH_SECONDS and clips > 1:
            break


def _evaluating(model: Any, precision: Precision, device: str) -> Callable[[Any], Any]:
    """A function from clips to logits on the host, as an evaluation computes them."""
    forward = traced(model) if device == "cpu" and precision.name == "fp32" else model

    def evaluate(clips: Any) -> Any:
        with evaluating(model):
            return precision.forward(forward, clips).numpy()

    return evaluate


def _on_noise(evaluate: Callable[[Any], Any], config: Config, precision: Precision, rows: int) -> Callable[[], Any]:
    """A function that evaluates `rows` clips of random numbers."""
    size = config.augment.size_px
    video = [config.clip.num_frames, size, size]
    video.insert(0 if config.model.data_format == "NCDHW" else 3, 3)
    clips = import_paddle().randn([rows, *video]).astype(precision.clip_dtype)
    return lambda: evaluate(clips)


def _report(subject: str, clips: int, work: Callable[[], Any], device: str, send: Callable[[Any], None]) -> float:
    """Do `work`, on `clips` clips, twice; send what it took, and return the seconds of the second time."""
    free_memory(device)
    forget_peak_memory()
    work()  # makes graphs, moments and the kernels for this size
    start = time.monotonic()
    work()  # on the CPU this waits; a GPU has done it when the memory is read
    seconds = time.monotonic() - start
    send((subject, Reading(clips, seconds, *_memory(device))))
    return seconds


def _memory(device: str) -> tuple[int, int]:
    """(memory, address space) in bytes that this process has taken at most; on a GPU the memory of that."""
    memory, address = peak_memory()
    if device == "gpu":
        memory = int(import_paddle().device.cuda.max_memory_reserved()) + _GPU_LIBRARIES
    return memory, address

"""A contender of the CPU study: the reference's ResNet-18 in plain Paddle, in r3d-fast or in PyTorch.

Run as a process, `CONTENDER MODE`: for each line on stdin it takes a step and prints its seconds and its value as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

BATCH = 8
CLIP = (3, 16, 112, 112)
CLASSES = 101
PLAIN, FAST, TORCH = "paddle", "r3d-fast", "torch"


def serve(name: str, mode: str) -> None:
    """Take a step of contender `name` for each line on stdin, until there are no more."""
    step = torch_step(mode) if name == TORCH else paddle_step(mode, fast=name == FAST)
    for _ in sys.stdin:
        begin = time.perf_counter()
        value = step()
        print(json.dumps({"seconds": time.perf_counter() - begin, "value": value}), flush=True)


def paddle_step(mode: str, *, fast: bool) -> Callable[[], float]:
    """A training step (it returns the loss) or an evaluation (the largest logit), by r3d-fast's graph if `fast`."""
    from r3d_fast.acceleration.cpu import accelerate_training, traced
    from r3d_fast.backend.paddle import choose_device, import_paddle
    from r3d_fast.models.architectures import build_model

    paddle = import_paddle()
    choose_device("cpu")
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=CLASSES)
    clips = paddle.to_tensor(np.random.default_rng(0).standard_normal((BATCH, *CLIP), dtype=np.float32))
    labels = paddle.arange(BATCH)
    optimizer = paddle.optimizer.Momentum(
        1e-3, 0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-3)
    )
    if mode == "eval":
        model.eval()
    faster = accelerate_training if mode == "train" else traced
    forward = faster(model) if fast else model

    def train() -> float:
        loss = paddle.nn.functional.cross_entropy(forward(clips), labels)
        value = float(loss)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return value

    def evaluate() -> float:
        with paddle.no_grad():
            return float(forward(clips).abs().max())

    return train if mode == "train" else evaluate


def torch_step(mode: str) -> Callable[[], float]:
    """The same in PyTorch, with weights of its own and as many threads as OMP_NUM_THREADS says. Raises ImportError."""
    from bench.studies.torch_model import runner

    return runner(mode, int(os.environ["OMP_NUM_THREADS"]), BATCH, CLIP, CLASSES)


if __name__ == "__main__":
    serve(*sys.argv[1:])

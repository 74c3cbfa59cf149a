"""Reads the operations of a traced layer, in the form of Paddle 2.6 and in that of 3.x, and checks their types."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from r3d_fast.backend.precision import Precision


def types(graph: Any, sample: Any) -> list[tuple[str, set[str]]]:
    """(name, floating types of inputs and outputs) of each operation in the graph's program for clips like `sample`."""
    concrete, _ = graph.forward.get_concrete_program(sample)
    block = concrete.main_program.global_block()
    if hasattr(block.ops[0], "input_arg_names"):  # the form of 2.6
        found = [
            (op.type, [block.var(name).dtype for name in (*op.input_arg_names, *op.output_arg_names)])
            for op in block.ops
        ]
    else:
        found = [
            (
                op.name().split(".")[1],
                [v.dtype for v in (*op.operands_source(), *op.results()) if v.is_dense_tensor_type()],
            )
            for op in block.ops
            if op.name() not in ("builtin.parameter", "pd_op.data")
        ]
    short = {"FP16": "float16", "BF16": "bfloat16", "FP32": "float32"}
    named = [(name, [str(dtype).rpartition(".")[2] for dtype in dtypes]) for name, dtypes in found]
    return [
        (name, {short.get(d, d.lower()) for d in dtypes if "F" in d or d.lower().startswith(("float", "bfloat"))})
        for name, dtypes in named
    ]


def convolution_inputs(graph: Any, sample: Any) -> list[tuple[int, list[int]]]:
    """(input channels, shape of the weights) of each convolution in the graph's program for clips like `sample`."""
    concrete, _ = graph.forward.get_concrete_program(sample)
    block = concrete.main_program.global_block()
    if hasattr(block.ops[0], "input_arg_names"):  # the form of 2.6
        convolutions = [op for op in block.ops if op.type == "conv3d"]
        pairs = [(block.var(op.input("Input")[0]).shape, block.var(op.input("Filter")[0]).shape) for op in convolutions]
        last = [op.attr("data_format") == "NDHWC" for op in convolutions]
    else:
        convolutions = [op for op in block.ops if op.name() == "pd_op.conv3d"]
        pairs = [tuple(value.shape for value in op.operands_source()) for op in convolutions]
        last = [op.attrs()["data_format"] == "NDHWC" for op in convolutions]
    return [(clip[4 if at_end else 1], list(weight)) for (clip, weight), at_end in zip(pairs, last, strict=True)]


def clips(data_format: str = "NCDHW", seed: int = 0, batch: int = 6, side: int = 32) -> Any:
    values = np.random.default_rng(seed).normal(size=(batch, 3, 16, side, side)).astype(np.float32)
    return paddle.to_tensor(values if data_format == "NCDHW" else values.transpose(0, 2, 3, 4, 1).copy())


def train(model: Any, forward: Any, steps: int = 3) -> tuple[list[float], dict[str, Any]]:
    """(losses, gradients of the first step) of a few training steps."""
    losses, first = [], {}
    optimizer = optimiser(model)
    model.train()
    for step in range(steps):
        batch = clips(model.architecture.data_format, step, side=64)
        loss = F.cross_entropy(forward(batch), paddle.to_tensor([0, 1, 2] * 2))
        loss.backward()
        losses.append(float(loss))
        first = first or {n: p.grad.numpy().copy() for n, p in model.named_parameters() if not p.stop_gradient}
        optimizer.step()
        optimizer.clear_grad()
    return losses, first


HALVES = [Precision(name, level) for name in ("fp16", "bf16") for level in ("O1", "O2")]  # type: ignore[arg-type]


def momentum(model: Any, rate: float = 1e-3) -> Any:
    decay = paddle.regularizer.L2Decay(1e-3)
    return paddle.optimizer.Momentum(rate, 0.9, parameters=model.parameters(), weight_decay=decay)


def assert_types(model: Any, found: list[tuple[str, set[str]]], dtype: str, casts: int) -> None:
    convolutions = [dtypes for op, dtypes in found if op == "conv3d"]
    assert len(convolutions) == sum(isinstance(layer, paddle.nn.Conv3D) for layer in model.sublayers())
    assert all(dtypes == {dtype} for dtypes in convolutions)
    for op, dtypes in found:
        # Batch norm keeps its statistics and parameters in float32; so is the number with which a tensor is filled.
        mixed = op in ("cast", "batch_norm", "batch_norm_", "full", "full_with_tensor")
        allowed = {dtype, "float32"} if mixed else {dtype}
        assert dtypes <= allowed, op
    assert sum(op == "cast" for op, _ in found) == casts


def convolution_weights(model: Any) -> list[Any]:
    layers = [layer for layer in model.backbone.sublayers() if isinstance(layer, paddle.nn.Conv3D)]
    return [parameter for layer in layers for parameter in layer.parameters()]


def optimiser(model: Any, weight_decay: float = 1e-3) -> Any:
    decay = paddle.regularizer.L2Decay(weight_decay)
    # The rate is small because batch norms over few values amplify differences that come from rounding alone.
    return paddle.optimizer.Momentum(1e-4, 0.9, parameters=model.parameters(), weight_decay=decay)

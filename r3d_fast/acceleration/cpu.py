"""Makes models faster on the CPU: with oneDNN's convolutions in training, and a graph all in oneDNN in evaluation.

Paddle's own CPU convolution copies one clip at a time into a large matrix. oneDNN's needs no such matrix, but Paddle
uses it in graphs only. So the backbone is traced. In training only its convolutions use oneDNN. If the other operations
did too, batch norms and activations would get gradients in another memory layout and use slow reference code.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from pipelines.output.temporary import temporary_folder
from r3d_fast.acceleration.tracing import Forward, backbone_sharing_weights, warn_of_slower_path
from r3d_fast.backend.layers import paddle
from r3d_fast.backend.paddle import (
    cpu_threads,
    new_parameter,
    older_graphs,
    release_graphs,
    restore_threads,
    use_onednn,
)
from r3d_fast.backend.precision import Precision
from r3d_fast.models.classifier import evaluating

FullForward = Callable[[Any], tuple[Any, Any]]  # clips -> logits float32 [N, C], features float32 [N, F]

_WORTH_TRACING = 16  # clips; with fewer, making the graph takes longer than it saves


@dataclass
class _Graphs:
    """What there is of a model for evaluations, by the shape of the clips.

    `forwards` compute with the weights whose checksum is `digest`. `layers` are what they were made of: tracing is done
    once, as it takes most of the time, and Paddle keeps something of each trace for ever. They share the `tensors` of
    the model.
    """

    digest: int
    tensors: list[Any]
    forwards: dict[tuple[int, ...], FullForward]
    layers: dict[tuple[int, ...], Any]


_graphs: WeakKeyDictionary[Any, _Graphs] = WeakKeyDictionary()  # by model


def accelerate_training(model: Any) -> Forward:
    """A function from clips to the logits that `model` computes in training, several times as fast on a CPU.

    It is differentiable, and uses the parameters and buffers of `model`, so the optimiser, checkpoints and evaluation
    keep using `model`. Values differ by float32 rounding. If this Paddle can't make the graph, the function prints one
    warning on stderr and calls `model` itself.
    """
    _keep_freed_memory()
    return _TrainingGraph(model)


def is_worth_tracing(clips: int, device: str, precision: Precision) -> bool:
    """Whether `traced` saves time for this many clips: it needs float32 on the CPU, and enough clips."""
    return device == "cpu" and precision.name == "fp32" and clips >= _WORTH_TRACING


def traced(model: Any) -> Forward:
    """A function from clips to the logits of `model` in evaluation mode, with its present weights, without gradients.

    A graph is made for each shape of clips when the first of them comes; it takes any batch size. Graphs are used again
    as long as the weights have not changed. If this Paddle can't make the graph, the function prints one warning on
    stderr and calls `model` itself.
    """
    both = traced_with_features(model)
    return lambda clips: both(clips)[0]


def traced_with_features(model: Any) -> FullForward:
    """A function from clips to (logits, features), made in the same way as `traced`."""
    tensors = list(model.state_dict().values())
    digest = 0
    for value in tensors:
        digest = zlib.crc32(value.numpy(), digest)
    known = _graphs.get(model)
    if known is None or [*map(id, known.tensors)] != [*map(id, tensors)]:
        known = _graphs[model] = _Graphs(digest, tensors, {}, {})
    elif known.digest != digest:
        known = _graphs[model] = replace(known, digest=digest, forwards={})
    forwards, layers = known.forwards, known.layers

    def forward(clips: Any) -> tuple[Any, Any]:
        shape = tuple(clips.shape[1:])
        if shape not in forwards:
            try:
                forwards[shape] = _compile(model, shape, layers)
            except Exception as error:  # different versions of Paddle raise different errors
                warn_of_slower_path("evaluates", "CPU", error)
                forwards[shape] = _untraced(model)
        return forwards[shape](clips)

    return forward


def forget_traced(model: Any) -> None:
    """Free the graphs that `traced` has made of `model`, with their copies of its weights.

    What was traced stays, for the next evaluation; it shares the weights of the model.
    """
    if model in _graphs:
        _graphs[model] = replace(_graphs[model], forwards={})


class _TrainingGraph:
    """Runs the model's backbone as a graph. The head runs as it is, so that dropout draws the same random numbers."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.sublayers(include_self=True)
        self.biased = [
            (conv, norm)
            for layer in self.layers
            for conv, norm in pairwise(layer.children())
            if isinstance(conv, paddle.nn.Conv3D) and isinstance(norm, paddle.nn.BatchNorm3D) and conv.bias is not None
        ]
        # By which layers are in training mode, because parts may be frozen; None if this Paddle can't make the graph.
        self.graphs: dict[tuple[bool, ...], _Features | None] = {}
        self._shape: list[int] | None = None  # of the last clips

    def __call__(self, clips: Any) -> Any:
        if clips.shape != self._shape:
            # Else the graph would keep its work space for each size of a batch: at width 64 as much as a step needs.
            release_graphs()
            self._shape = clips.shape
        key = tuple(layer.training for layer in self.layers)
        if not any(key) or any(not norm.training and not conv.bias.stop_gradient for conv, norm in self.biased):
            return self.model(clips)
        if key not in self.graphs:
            try:
                self.graphs[key] = self._trace()
                return self._logits(clips, self.graphs[key])
            except Exception as error:  # different versions of Paddle raise different errors
                warn_of_slower_path("trains", "CPU", error)
                self.graphs[key] = None
        features = self.graphs[key]
        return self.model(clips) if features is None else self._logits(clips, features)

    def _trace(self) -> _Features:
        """A new graph of the backbone, for the layers that are in training mode now."""
        copying = _has_to_copy_weights()
        # The bias of a convolution before a batch norm only changes the mean, so the graph has no such biases. The
        # running means are corrected in `_logits`, those of frozen batch norms in `_Features`.
        backbone = _channels_first(self.model, conv_bias=False)
        norms = dict(zip(self.model.backbone.sublayers(), backbone.sublayers(), strict=True))
        frozen = [(conv.bias, norm, norms[norm]) for conv, norm in self.biased if not norm.training]
        for _, norm, mine in frozen:
            mine._mean = new_parameter(norm._mean.clone())
            mine._mean.stop_gradient = True
        return _Features(_training_graph(backbone, self.model.architecture.data_format, copying), frozen)

    def _logits(self, clips: Any, features: _Features | None) -> Any:
        """The logits of clips, with the effects of the biases that the graph leaves out."""
        assert features is not None
        with older_graphs():
            logits = self.model.head(features(clips))
        moving = [(conv, norm) for conv, norm in self.biased if norm.training]
        if not moving:
            return logits
        with paddle.no_grad():
            for conv, norm in moving:
                norm._mean.add_((1.0 - norm._momentum) * conv.bias)
        # Give the biases gradients of 0, because an optimiser skips parameters without a gradient, and so their decay.
        return logits + 0.0 * paddle.add_n([conv.bias.sum() for conv, _ in moving])


@dataclass(frozen=True)
class _Features:
    """The `graph` of a backbone without biases.

    `frozen` has, for each batch norm that is not trained: (bias of the convolution before it, the model's batch norm,
    that of the graph).
    """

    graph: Any
    frozen: list[tuple[Any, Any, Any]]

    def __call__(self, clips: Any) -> Any:
        with paddle.no_grad():
            for bias, norm, mine in self.frozen:  # a fixed mean does not follow the bias, so it has to be shifted
                paddle.assign(norm._mean - bias, output=mine._mean)
        return self.graph(clips)


class _Layout(paddle.nn.Layer):  # type: ignore[misc]
    """Makes a channels-first layer take clips of `data_format`. Calls `mark` with its output when it is traced."""

    def __init__(self, layer: Any, data_format: str, mark: Callable[[Any], None]) -> None:
        super().__init__()
        self.layer = layer
        self.last = data_format == "NDHWC"
        self.mark = mark

    def forward(self, clips: Any) -> Any:
        x = paddle.transpose(clips, [0, 4, 1, 2, 3]) if self.last else clips
        x = self.layer(x)
        self.mark(x)
        return paddle.transpose(x, [0, 2, 3, 4, 1]) if self.last else x


def _training_graph(layer: Any, data_format: str, copying: bool) -> Forward:
    """A graph of the channels-first `layer` that trains on clips of `data_format`, with oneDNN's convolutions.

    `copying`: see _has_to_copy_weights.
    """

    @paddle.jit.not_to_static  # type: ignore[untyped-decorator]
    def mark(output: Any) -> None:
        """Make the convolutions in the traced block use oneDNN; called while the graph is traced."""
        block = output.block
        for position, op in reversed(list(enumerate(block.ops))):
            if op.type != "conv3d":
                continue
            op._set_attr(next(name for name in ("use_onednn", "use_mkldnn") if op.has_attr(name)), True)
            if copying:
                weight = op.input("Filter")[0]
                op._rename_input(weight, _copy_of(block, weight, position))
                output = op.output("Output")[0]
                for later, user in enumerate(block.ops):
                    if user.type == "concat" and output in user.input("X"):
                        user._rename_input(output, _copy_of(block, output, later))
                        break

    return paddle.jit.to_static(_Layout(layer, data_format, mark), full_graph=True)  # type: ignore[no-any-return]


def _copy_of(block: Any, name: str, position: int) -> str:
    """Insert an operation at `position` of the block that copies the tensor `name`; returns the name of the copy."""
    tensor = block.var(name)
    copy = block.create_var(name=f"{name}@COPY", shape=tensor.shape, dtype=tensor.dtype)
    tensors = {"inputs": {"X": [tensor]}, "outputs": {"Out": [copy]}}
    block._insert_op(position, type="scale", **tensors, attrs={"scale": 1.0})
    return str(copy.name)


def _channels_first(model: Any, *, conv_bias: bool) -> Any:
    """A channels-first backbone with the weights of `model`; with channels last, oneDNN's results are wrong here."""
    return backbone_sharing_weights(model, replace(model.architecture, data_format="NCDHW", conv_bias=conv_bias))


@cache
def _has_to_copy_weights() -> bool:
    """Whether a graph has to copy its weights and the tensors that it concatenates, because of bugs in Paddle 2.6.2.

    If a weight goes straight into a convolution, Paddle 2.6.2 returns its gradient in oneDNN's order of elements. If
    the output of a convolution goes straight into a concatenation, it reads the gradient in oneDNN's order and crashes
    the process. The first bug is tested here; the second can't be tested, and is taken to come with the first. Raises
    RuntimeError if the gradients are wrong even with copies.
    """
    state = paddle.get_rng_state()
    x = paddle.normal(shape=[2, 16, 4, 8, 8])
    conv = paddle.nn.Conv3D(16, 32, 3, padding=1, bias_attr=False)
    paddle.set_rng_state(state)
    (conv(x) ** 2).mean().backward()
    expected = conv.weight.grad.numpy()
    for copying in (False, True):
        conv.clear_gradients()
        with older_graphs():
            output = _training_graph(conv, "NCDHW", copying)(x)
        (output**2).mean().backward()
        if np.abs(conv.weight.grad.numpy() - expected).max() < 1e-3 * np.abs(expected).max():
            return copying
    raise RuntimeError("oneDNN's gradients are wrong")


class _EvaluationModel(paddle.nn.Layer):  # type: ignore[misc]
    """The channels-first backbone and the head of a model, which give logits and features in evaluation mode."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        architecture = model.architecture
        backbone = _channels_first(model, conv_bias=architecture.conv_bias)
        self.features = _Layout(backbone, architecture.data_format, lambda output: None)
        self.head = model.head
        self.eval()

    def forward(self, clips: Any) -> tuple[Any, Any]:
        x = self.features(clips)
        return self.head.logits_and_features(x)  # type: ignore[no-any-return]


def _compile(model: Any, shape: tuple[int, ...], layers: dict[tuple[int, ...], Any]) -> FullForward:
    """A graph of `model` for clips of `shape` (without the batch), run by Paddle's inference engine.

    `layers`: what was traced before by its shape; it is used, or added.
    """
    with evaluating(model), temporary_folder() as folder, older_graphs():
        path = folder / "model"
        spec = [paddle.static.InputSpec([None, *shape], "float32", "clips")]
        if shape not in layers:
            layers[shape] = paddle.jit.to_static(_EvaluationModel(model), input_spec=spec, full_graph=True)
        paddle.jit.save(layers[shape], str(path), input_spec=spec)
        config = paddle.inference.Config(f"{path}.pdmodel", f"{path}.pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        config.enable_memory_optim()
        config.set_cpu_math_library_num_threads(cpu_threads())
        use_onednn(config)
        predictor = paddle.inference.create_predictor(config)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    logits, features = (predictor.get_output_handle(name) for name in predictor.get_output_names())

    def forward(clips: Any) -> tuple[Any, Any]:
        source.reshape(clips.shape)
        source.copy_from_cpu(clips.numpy())
        predictor.run()
        restore_threads()
        return paddle.to_tensor(logits.copy_to_cpu()), paddle.to_tensor(features.copy_to_cpu())

    return forward


def _untraced(model: Any) -> FullForward:
    """(logits, features) of `model` without a graph, as a function of clips."""

    def forward(clips: Any) -> tuple[Any, Any]:
        with evaluating(model):
            return model.logits_and_features(clips)  # type: ignore[no-any-return]

    return forward


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees for the next step, unless the user has set malloc's options.

    By default each large array is new memory from the kernel, which has to clear it page by page.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)

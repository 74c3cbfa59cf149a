"""Makes training faster on a GPU: with the backbone as a graph, and the fastest cuDNN algorithms, found by search.

In a graph, no Python runs between the operations. The graph contains the casts that autocast would make: all operations
compute in the type of the clips, and weights are cast to it. Autocast itself can't be used with graphs in the same way
in all versions: 3.x uses the context in which the graph is traced, 2.6 casts the traced graph later, and to float16
even if bfloat16 is wanted. So graphs are traced and run with autocast off.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from r3d_fast.acceleration.tracing import Forward, backbone_sharing_weights, warn_of_slower_path
from r3d_fast.backend.layers import F, paddle
from r3d_fast.backend.memory import is_out_of_memory
from r3d_fast.backend.paddle import without_autocast
from r3d_fast.backend.precision import Precision

# The memory that an algorithm may use as workspace. Paddle's default is 512; this is what Paddle sets together with the
# search for mixed precision (AMP_RELATED_FLAGS_SETTING of paddle.amp.auto_cast, 2.6.2 and 3.3.1).
_WORKSPACE_MIB = 1000
_FLAGS = ("FLAGS_cudnn_exhaustive_search", "FLAGS_conv_workspace_size_limit", "FLAGS_cudnn_deterministic")
_PERSISTENT = "FLAGS_cudnn_batchnorm_spatial_persistent"


def accelerate_training(model: Any, *, padded_stem: bool = False) -> Forward:
    """A function from clips to the logits that `model` computes in training, with its backbone as a graph.

    Convolutions compute in the type of the clips, as with the autocast of `Precision.forward`, which casts the clips to
    the wanted type. The function is differentiable, and uses the parameters and buffers of `model`, so the optimiser,
    checkpoints and evaluation keep using `model`. The values of parameters may change, but not the parameter objects.
    Each shape of clips and each choice of frozen parts gets its own graph. If this Paddle can't make one, the function
    prints one warning on stderr and calls `model` itself.

    With `padded_stem` the graph appends a fourth channel of zeros to the clips and to the weights of the convolution
    that takes them, because tensor cores read half-precision channels in multiples of 4 or 8 (NVIDIA's "Deep Learning
    Performance" guide, on convolutions with few channels). Results are the same; the model keeps its 3 channels.
    """
    return _TrainingGraph(model, padded_stem)


def search_algorithms() -> None:
    """Make cuDNN try all its algorithms for each convolution, once for each shape of clips, and keep the fastest.

    Paddle stores the choice by shapes, type and layout, for the forward pass and for both gradients. Up to 1000 MiB of
    the GPU's memory are used during the search, and later if the fastest algorithm needs them. A flag that the user has
    set as an environment variable is not changed. There is no search on a CPU, or with FLAGS_cudnn_deterministic, with
    which Paddle refuses it.
    """
    if not paddle.get_device().startswith("gpu"):
        return
    search, limit, deterministic = _FLAGS
    with suppress(ValueError):  # this build of Paddle has no such flags
        now = paddle.get_flags(list(_FLAGS))
        wanted: dict[str, Any] = {} if now[deterministic] else {search: True}
        if wanted and 0 <= now[limit] < _WORKSPACE_MIB:  # a negative value means no limit
            wanted[limit] = _WORKSPACE_MIB
        paddle.set_flags({name: value for name, value in wanted.items() if name not in os.environ})


def choose_batch_norm(precision: Precision, data_format: str) -> None:
    """Make cuDNN's batch norm take float16 tensors channels last as they lie; in all other cases leave that mode off.

    The mode is for the whole process. Without it Paddle copies channels-last tensors into another order and back. It
    has no effect on bfloat16 and float32 but a smaller range of numbers, and channels first it is less exact. (Source:
    `fast_nhwc_batch_norm` and the comment at `mode_` in paddle/phi/kernels/gpu/batch_norm_kernel.cu, 2.6 and 3.x.)
    Where the user has set the flag as an environment variable, it stays. Nothing is done on a CPU.
    """
    if paddle.get_device().startswith("gpu") and _PERSISTENT not in os.environ:
        with suppress(ValueError):  # this build of Paddle has no such flag
            paddle.set_flags({_PERSISTENT: precision.name == "fp16" and data_format == "NDHWC"})


def flags() -> dict[str, Any]:
    """The present values of the flags that this module sets; none for a build of Paddle without them."""
    with suppress(ValueError):
        return dict(paddle.get_flags([*_FLAGS, _PERSISTENT]))
    return {}


class _TrainingGraph:
    """Runs the model's backbone as a graph. The head runs as it is, so that dropout draws the same random numbers."""

    def __init__(self, model: Any, padded_stem: bool) -> None:
        self.model, self.padded_stem = model, padded_stem
        self.layers = model.backbone.sublayers(include_self=True)
        self.parameters = model.backbone.parameters()
        state = model.backbone.state_dict()
        self.statistics = [tensor for key, tensor in state.items() if key.endswith(("._mean", "._variance"))]
        self.graphs: dict[tuple[bool, ...], Forward] = {}  # by what is frozen, because a graph depends on that
        self.tried: set[Any] = set()  # (what is frozen, type, shape) with which a graph has worked
        self.failed = False

    def __call__(self, clips: Any) -> Any:
        if self.failed or not self.model.training:
            return self.model(clips)
        frozen = (*(not layer.training for layer in self.layers), *(p.stop_gradient for p in self.parameters))
        key = (frozen, clips.dtype, tuple(clips.shape))
        if key not in self.tried:
            try:
                self._try(frozen, clips)
            except Exception as error:  # different versions of Paddle raise different errors
                if is_out_of_memory(error):
                    self.graphs.clear()  # they keep memory of this run, which a smaller batch will need
                    self.tried.clear()
                    raise
                warn_of_slower_path("trains", "GPU", error)
                self.failed = True
                return self.model(clips)
            self.tried.add(key)
        with _apart_from_autocast():
            features = self.graphs[frozen](clips)
        return self.model.head(features)

    def _try(self, frozen: tuple[bool, ...], clips: Any) -> None:
        """Trace a graph and run it forward and backward; afterwards restore the model's statistics and gradients."""
        with paddle.no_grad():
            statistics = [tensor.clone() for tensor in self.statistics]
        gradients = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        try:
            with warnings.catch_warnings(), _apart_from_autocast():
                warnings.simplefilter("ignore")  # Paddle warns about its own code when it traces that
                if frozen not in self.graphs:
                    self.graphs[frozen] = _trace_backbone(self.model, self.padded_stem)
                features = self.graphs[frozen](clips)
                if not features.stop_gradient:
                    # Not paddle.grad: with it, 2.6.2 frees memory that the next run of the graph still needs.
                    features.sum().backward()
        finally:
            with paddle.no_grad():
                for tensor, before in zip(self.statistics, statistics, strict=True):
                    paddle.assign(before, output=tensor)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.clear_gradient(False)
                if gradient is not None:
                    parameter.grad = gradient


@contextmanager
def _apart_from_autocast() -> Iterator[None]:
    """Turns autocast off in its block, which has tensor names of its own: a graph that fails leaves names behind."""
    with paddle.utils.unique_name.guard(), without_autocast():
        yield


class _Traced(paddle.nn.Layer):  # type: ignore[misc]
    """Wraps a layer to trace. It stays in training mode even if the layer is frozen, else there are no gradients."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, clips: Any) -> Any:
        return self.layer(clips)


class _Convolution(paddle.nn.Layer):  # type: ignore[misc]
    """A convolution that computes in the type of its input and casts its weights to that.

    With `padded` it computes with one more input channel, which is zero in input and weights.
    """

    def __init__(self, conv: Any, padded: bool) -> None:
        super().__init__()
        self.conv = conv
        self.padded = padded

    def forward(self, x: Any) -> Any:
        conv = self.conv
        weight, bias = _as_type(conv.weight, x.dtype), _as_type(conv.bias, x.dtype)
        if self.padded:
            x = _with_zeros(x, 4 if conv._data_format == "NDHWC" else 1)
            weight = _with_zeros(weight, 1)
        return F.conv3d(x, weight, bias, conv._stride, conv._padding, conv._dilation, conv._groups, conv._data_format)


def _with_zeros(tensor: Any, axis: int) -> Any:
    """`tensor` with one more channel, of zeros; `axis` is that of the channels."""
    shape = list(tensor.shape)
    shape[axis] = 1
    return paddle.concat([tensor, paddle.zeros(shape, dtype=tensor.dtype)], axis=axis)


def _as_type(tensor: Any, dtype: Any) -> Any:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.astype(dtype)


def _trace_backbone(model: Any, padded_stem: bool = False) -> Any:
    """A graph of the model's backbone, with the same parts frozen as now; see `accelerate_training`."""
    backbone = backbone_sharing_weights(model, model.architecture)
    layers = backbone.sublayers()
    first = next(layer for layer in layers if isinstance(layer, paddle.nn.Conv3D))  # takes the clips
    for layer in layers:
        for name, child in list(layer.named_children()):
            if isinstance(child, paddle.nn.Conv3D):
                setattr(layer, name, _Convolution(child, padded_stem and child is first))
    return paddle.jit.to_static(_Traced(backbone), full_graph=True)

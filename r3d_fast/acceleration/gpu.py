"""The same models on a GPU: the backbone as a graph in training, cuDNN's algorithms chosen by search.

Between the operations of a graph no Python runs. Which type an operation computes in is written into the graph, as
autocast would have it: everything in the type of the clips, weights cast to it. Autocast itself can't be left to it:
3.x casts by the context in which a graph is traced, 2.6 casts a traced graph afterwards, to float16 even where bfloat16
is asked for. So graphs are traced and run outside of it.
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

# The space in which an algorithm may work. Paddle's default is 512; this is what it names beside the search in its
# settings for mixed precision (AMP_RELATED_FLAGS_SETTING of paddle.amp.auto_cast, 2.6.2 and 3.3.1).
_WORKSPACE_MIB = 1000
_FLAGS = ("FLAGS_cudnn_exhaustive_search", "FLAGS_conv_workspace_size_limit", "FLAGS_cudnn_deterministic")


def accelerate_training(model: Any) -> Forward:
    """Clips -> logits as `model` gives them while it trains, differentiable, its backbone as a graph.

    Convolutions compute in the type of the clips, as under the autocast of `Precision.forward`, which makes the clips
    of the type it asks for. Parameters, buffers and their names stay the model's own: optimiser, checkpoints and
    evaluation go on using `model`. Parameters may change their values, not be exchanged for others. Each shape of clips
    and each choice of frozen parts gets a graph. Where Paddle can't do it, one warning on stderr and the model itself.
    """
    return _TrainingGraph(model)


def search_algorithms() -> None:
    """Have cuDNN try all its algorithms for each convolution, once for each shape of clips, and keep the fastest.

    Paddle remembers them by shapes, type and layout: for the forward pass and for both gradients. For the time of the
    search and where such an algorithm is the fastest, up to 1000 MiB of the GPU's memory are used. A flag that the user
    set as an environment variable stays; nothing is searched on a CPU or under FLAGS_cudnn_deterministic, with which
    Paddle refuses it.
    """
    if not paddle.get_device().startswith("gpu"):
        return
    search, limit, deterministic = _FLAGS
    with suppress(ValueError):  # a build of Paddle that has no such flag computes as it does
        now = paddle.get_flags(list(_FLAGS))
        wanted: dict[str, Any] = {} if now[deterministic] else {search: True}
        if wanted and 0 <= now[limit] < _WORKSPACE_MIB:  # less than 0: no limit
            wanted[limit] = _WORKSPACE_MIB
        paddle.set_flags({name: value for name, value in wanted.items() if name not in os.environ})


class _TrainingGraph:
    """The model's backbone as graphs; its head as it is, so that dropout draws what it always draws."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.backbone.sublayers(include_self=True)
        self.parameters = model.backbone.parameters()
        state = model.backbone.state_dict()
        self.statistics = [tensor for key, tensor in state.items() if key.endswith(("._mean", "._variance"))]
        self.graphs: dict[tuple[bool, ...], Forward] = {}  # by what is frozen: that is part of a graph
        self.tried: set[Any] = set()
        self.failed = False

    def __call__(self, clips: Any) -> Any:
        if self.failed or not self.model.training:
            return self.model(clips)
        frozen = (*(not layer.training for layer in self.layers), *(p.stop_gradient for p in self.parameters))
        key = (frozen, clips.dtype, tuple(clips.shape))
        if key not in self.tried:
            try:
                self._try(frozen, clips)
            except Exception as error:  # whatever a version of Paddle may raise: the model gives the same
                if is_out_of_memory(error):
                    self.graphs.clear()  # with what they hold of this run: a smaller batch has to fit
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
        """Trace a graph, run it forward and backward, and leave no trace of that in the model."""
        with paddle.no_grad():
            statistics = [tensor.clone() for tensor in self.statistics]
        gradients = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        try:
            with warnings.catch_warnings(), _apart_from_autocast():
                warnings.simplefilter("ignore")  # Paddle's, of its own code: it is traced too
                if frozen not in self.graphs:
                    self.graphs[frozen] = _trace_backbone(self.model)
                features = self.graphs[frozen](clips)
                if not features.stop_gradient:
                    # Not paddle.grad: after it, 2.6.2 frees what the next run of the graph still needs.
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
    """Without autocast; with names of its own, as a graph that raises leaves Paddle naming tensors in its way."""
    with paddle.utils.unique_name.guard(), without_autocast():
        yield


class _Traced(paddle.nn.Layer):  # type: ignore[misc]
    """A layer to trace, of which parts may be frozen: in evaluation mode itself, no graph would have gradients."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, clips: Any) -> Any:
        return self.layer(clips)


class _Convolution(paddle.nn.Layer):  # type: ignore[misc]
    """A convolution in the type of its input, whatever its weights are stored in."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Any) -> Any:
        conv = self.conv
        weight, bias = _as_type(conv.weight, x.dtype), _as_type(conv.bias, x.dtype)
        return F.conv3d(x, weight, bias, conv._stride, conv._padding, conv._dilation, conv._groups, conv._data_format)


def _as_type(tensor: Any, dtype: Any) -> Any:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.astype(dtype)


def _trace_backbone(model: Any) -> Any:
    """The backbone of `model` as a graph, frozen where it is frozen now."""
    backbone = backbone_sharing_weights(model, model.architecture)
    for layer in backbone.sublayers():
        for name, child in list(layer.named_children()):
            if isinstance(child, paddle.nn.Conv3D):
                setattr(layer, name, _Convolution(child))
    return paddle.jit.to_static(_Traced(backbone), full_graph=True)

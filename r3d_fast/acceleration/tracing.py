"""What the traced graphs for the CPU and for a GPU share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from r3d_fast.backend.layers import paddle
from r3d_fast.console import tell
from r3d_fast.models.classifier import Architecture

Forward = Callable[[Any], Any]


def backbone_sharing_weights(model: Any, architecture: Architecture) -> Any:
    """A new backbone of `architecture` that has the same parameter and buffer objects as the backbone of `model`.

    The same parts are frozen. `architecture` may lack some parameters, such as biases. The new backbone is for tracing:
    that replaces methods of a layer and of all layers in it, and the model itself must stay as it is.
    """
    # The new layers may draw random weights, which must not change the random numbers that come later.
    state = paddle.get_rng_state()
    with paddle.LazyGuard():  # the weights are replaced below, so they need not be drawn
        backbone = architecture.backbone()
    paddle.set_rng_state(state)
    layers, originals = (b.sublayers(include_self=True) for b in (backbone, model.backbone))
    for mine, theirs in zip(layers, originals, strict=True):
        mine.training = theirs.training
        for name, _ in list(mine.named_parameters(include_sublayers=False)):
            setattr(mine, name, getattr(theirs, name))
        for name, _ in list(mine.named_buffers(include_sublayers=False)):
            setattr(mine, name, getattr(theirs, name))
    return backbone


def warn_of_slower_path(what: str, device: str, error: Exception) -> None:
    """Print on stderr that Paddle `what` ("trains" or "evaluates") without a graph on `device`, because of `error`."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    tell(f"warning: this Paddle {what} without its faster {device} path ({reason})")

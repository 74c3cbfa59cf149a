"""What graphs of a model on the CPU and on a GPU have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from r3d_fast.backend.layers import paddle
from r3d_fast.models.classifier import Architecture

Forward = Callable[[Any], Any]


def backbone_sharing_weights(model: Any, architecture: Architecture) -> Any:
    """A new backbone of `architecture` with the very parameters and buffers of `model`'s own, frozen where that is.

    It may lack some of them, such as biases. Tracing a layer replaces methods of it and of all layers in it, so it is
    this backbone that is traced, and the model's stays as it is.
    """
    state = paddle.get_rng_state()  # what the first weights of the new layers draw is not to be missed elsewhere
    with paddle.LazyGuard():  # they are not kept, so they need not be drawn
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
    """Say on stderr that Paddle `what` ("trains", "evaluates") as it does by itself on `device`, because of `error`."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    print(f"warning: this Paddle {what} without its faster {device} path ({reason})", file=sys.stderr)

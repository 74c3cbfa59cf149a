"""The optimiser, the clipping of gradients, and the optimiser's moments as arrays by the model's own names."""

from __future__ import annotations

from typing import Any

import numpy as np

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.backend.precision import float32_parameters
from r3d_fast.backend.snapshot import Arrays, snapshot
from r3d_fast.config.sections import OptimizerSpec
from r3d_fast.errors import CheckpointError


def new_optimizer(spec: OptimizerSpec, model: Any) -> Any:
    """The optimiser that `spec` describes, for the parameters of `model` that are not frozen.

    momentum: SGD with momentum; the weight decay is an L2 term in the gradient. adamw: Loshchilov and Hutter 2019,
    arXiv:1711.05101. With `decay: weights`, biases and batch norms (all parameters with one axis) are not decayed. The
    caller sets the learning rate before each step.
    """
    paddle = import_paddle()
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    if spec.decay == "weights":
        groups = [[p for p in parameters if (p.ndim > 1) is decayed] for decayed in (True, False)]
        decays = (spec.weight_decay, 0.0)
        parameters = [{"params": g, "weight_decay": d} for g, d in zip(groups, decays, strict=True) if g]
    if spec.name == "adamw":
        return paddle.optimizer.AdamW(
            learning_rate=spec.lr,
            beta1=spec.betas[0],
            beta2=spec.betas[1],
            epsilon=spec.epsilon,
            parameters=parameters,
            weight_decay=spec.weight_decay,
        )
    return paddle.optimizer.Momentum(
        learning_rate=spec.lr,
        momentum=spec.momentum,
        parameters=parameters,
        use_nesterov=spec.nesterov,
        weight_decay=paddle.regularizer.L2Decay(spec.weight_decay) if spec.weight_decay else None,
    )


def clip_gradients(gradients: list[Any], limit: float) -> Any:
    """The length, float32 [1], of all `gradients` as one vector; if above `limit`, they are shortened to it in place.

    The rule is that of Paddle's ClipGradByGlobalNorm, which would clip before the loss scale is divided out, and so
    can't be used. A length that is not finite shortens nothing. Nothing is read from the device.
    """
    paddle = import_paddle()
    with paddle.no_grad():
        norm = paddle.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().reshape([1])
        too_long = paddle.logical_and(norm > limit, paddle.isfinite(norm))
        factor = paddle.where(too_long, limit / norm, paddle.ones_like(norm))
        for gradient in gradients:
            paddle.assign(gradient * factor, output=gradient)
    return norm


def can_be_undone(optimizer: Any) -> bool:
    """Whether all that a step changes is on the device, so that the step can be undone there.

    For Adam it is not: Paddle keeps the powers of beta on the host.
    """
    return isinstance(optimizer, import_paddle().optimizer.Momentum)


def moment_tensors(optimizer: Any) -> list[Any]:
    """The tensors in which `optimizer` keeps its moments; none before the first step."""
    return [value for value in optimizer.state_dict().values() if hasattr(value, "numpy")]


def moments(model: Any, optimizer: Any) -> Arrays:
    """The optimiser's moments, by the model's own names of the parameters, as `NAME|MOMENT`.

    Paddle's own names can't be used: they depend on what was built earlier in the process.
    """
    state = optimizer.state_dict()
    arrays = {}
    for name, parameter in float32_parameters(model).items():
        for key, value in state.items():
            if key.startswith(parameter.name + "_") and hasattr(value, "numpy"):
                arrays[f"{name}|{key[len(parameter.name) + 1 :]}"] = snapshot(value)
    return arrays


def load_moments(model: Any, optimizer: Any, arrays: Arrays) -> None:
    """Give `optimizer` the moments that `moments` returned. Raises CheckpointError where they are of another model."""
    paddle = import_paddle()
    own = float32_parameters(model)
    state = {}
    for key, array in arrays.items():
        name, _, moment = key.partition("|")
        if name not in own:
            raise CheckpointError(f"the optimiser's moments don't fit the model: unexpected {key}")
        shape = list(own[name].shape)
        # Of Adam the powers of beta are one number.
        if array.dtype != np.float32 or (array.size != 1 and list(array.shape) != shape):
            raise CheckpointError(
                f"the optimiser's moments don't fit the model: {key} is {array.dtype} {list(array.shape)}, expected "
                f"float32 {shape}"
            )
        state[f"{own[name].name}_{moment}"] = paddle.to_tensor(array)
    if state:
        optimizer.set_state_dict(state)

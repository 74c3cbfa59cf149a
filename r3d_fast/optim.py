"""The optimiser of a config, and its moments as arrays under the model's own names."""

from __future__ import annotations

from typing import Any

import numpy as np

from r3d_fast.checkpoint import Arrays
from r3d_fast.compat import import_paddle
from r3d_fast.config import Config
from r3d_fast.precision import float32_parameters


def new_optimizer(config: Config, model: Any) -> Any:
    """The optimiser of `config`: SGD with momentum, L2 on every parameter; its rate is set before each step."""
    paddle = import_paddle()
    spec = config.optimizer
    return paddle.optimizer.Momentum(
        learning_rate=spec.lr,
        momentum=spec.momentum,
        parameters=model.parameters(),
        use_nesterov=spec.nesterov,
        weight_decay=paddle.regularizer.L2Decay(spec.weight_decay) if spec.weight_decay else None,
    )


def moments(model: Any, optimizer: Any) -> Arrays:
    """The optimiser's moments under the model's own names: Paddle's depend on what was built before in the process."""
    state = optimizer.state_dict()
    arrays = {}
    for name, parameter in float32_parameters(model).items():
        for key, value in state.items():
            if key.startswith(parameter.name + "_") and hasattr(value, "numpy"):
                arrays[f"{name}|{key[len(parameter.name) + 1 :]}"] = np.ascontiguousarray(value.numpy())
    return arrays


def load_moments(model: Any, optimizer: Any, arrays: Arrays) -> None:
    """Put what `moments` gave in place."""
    paddle = import_paddle()
    own = {name: parameter.name for name, parameter in float32_parameters(model).items()}
    state = {}
    for key, array in arrays.items():
        name, _, moment = key.partition("|")
        state[f"{own[name]}_{moment}"] = paddle.to_tensor(array)
    if state:
        optimizer.set_state_dict(state)

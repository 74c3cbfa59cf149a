"""Averaged weights: by hand, in evaluation, in float32, and as they come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu
from states import assert_equal, everything

from r3d_fast.backend.precision import Precision
from r3d_fast.errors import CheckpointError
from r3d_fast.learning.ema import Ema
from r3d_fast.models.architectures import build_model


def a_model(width: int = 2) -> Any:
    paddle.seed(0)
    return build_model("r3d18_reference", num_classes=3, width=width)


def shake(model: Any, seed: int) -> None:
    """Other weights and statistics, half and master ones alike."""
    rng = np.random.default_rng(seed)
    for tensor in model.state_dict().values():
        target = getattr(tensor, "master", tensor)
        value = rng.normal(size=target.shape).astype(np.float32)
        target.set_value(value)
        if target is not tensor:
            paddle.assign(target.astype(tensor.dtype), output=tensor)


def test_the_average_is_the_formula_by_hand_and_takes_batch_norm_statistics_in() -> None:
    model = a_model()
    ema = Ema(model, 0.3)
    keys = ("head.fc.weight", "backbone.layer2.0.block.2._variance", "backbone.stem.0.bn.bias")
    expected = {key: model.state_dict()[key].numpy().astype(np.float64) for key in keys}
    for number, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3, 0.3)):
        shake(model, number)
        ema.update()
        for key in keys:
            expected[key] = decay * expected[key] + (1 - decay) * model.state_dict()[key].numpy()
    assert ema.arrays().keys() == model.state_dict().keys()
    for key in keys:
        np.testing.assert_allclose(ema.arrays()[key], expected[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_what_does_not_move_stays_the_same_to_the_bit() -> None:
    model = a_model()
    shake(model, 0)
    ema = Ema(model, 0.999)
    for _ in range(20):
        ema.update()
    for key, array in ema.arrays().items():
        np.testing.assert_array_equal(array, model.state_dict()[key].numpy(), err_msg=key)


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_the_model_has_the_averages_in_the_block_and_its_own_bits_after_it(
    level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_gpu(monkeypatch)
    model, _ = Precision("fp16", level).decorate(a_model(), None)
    ema = Ema(model, 0.5)
    shake(model, 1)
    ema.update()
    shake(model, 2)

    class Trained:  # what `everything` looks at
        class optimizer:
            @staticmethod
            def state_dict() -> dict[str, Any]:
                return {}

    Trained.model = model  # type: ignore[attr-defined]
    before = everything(Trained)  # type: ignore[arg-type]
    with ema.applied():
        averages = ema.arrays()
        for key, tensor in model.state_dict().items():
            rounded = paddle.to_tensor(averages[key]).astype(tensor.dtype)
            np.testing.assert_array_equal(tensor.astype("float32").numpy(), rounded.astype("float32").numpy())
    assert_equal(everything(Trained), before)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert_equal(everything(Trained), before)  # type: ignore[arg-type]
    assert {array.dtype for array in ema.arrays().values()} == {np.dtype(np.float32)}


def test_it_goes_on_to_the_bit_from_its_arrays() -> None:
    model = a_model()
    whole = Ema(model, 0.9)
    for number in range(3):
        shake(model, number)
        whole.update()
    again = Ema(model, 0.9)
    again.load(whole.arrays(), whole.updates)
    for number in range(3, 6):
        shake(model, number)
        whole.update()
        again.update()
    assert_equal(again.arrays(), whole.arrays())


def test_averages_of_another_model_are_refused() -> None:
    ema = Ema(a_model(), 0.9)
    arrays = ema.arrays()
    arrays["other"] = arrays.pop("head.fc.bias")
    with pytest.raises(CheckpointError, match=r"don't fit the model: head\.fc\.bias, other"):
        ema.load(arrays, 3)

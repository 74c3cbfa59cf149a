from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from r3d_fast.backend.layers import paddle
from r3d_fast.models.architectures import build_model
from r3d_fast.models.classifier import evaluating


def small(dropout: float = 0.5) -> Any:
    paddle.seed(0)
    return build_model("r3d10", num_classes=5, width=4, dropout=dropout)


def clips() -> Any:
    return paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 3, 4, 16, 16)).astype(np.float32))


def test_logits_and_features_come_of_one_pass() -> None:
    model = small()
    with evaluating(model):
        logits, features = model.logits_and_features(clips())
        np.testing.assert_array_equal(logits.numpy(), model(clips()).numpy())
        pooled = model.backbone(clips()).numpy().mean(axis=(2, 3, 4))
        np.testing.assert_array_equal(logits.numpy(), model.head.fc(features).numpy())
    np.testing.assert_allclose(features.numpy(), pooled, atol=1e-6)
    assert (list(logits.shape), list(features.shape)) == ([3, 5], [3, model.architecture.features])


def test_dropout_takes_no_part_in_features() -> None:
    model = small()
    model.head.train()
    x = paddle.ones([64, model.architecture.features, 1, 1, 1])
    logits, features = model.head.logits_and_features(x)
    assert np.ptp(logits.numpy(), axis=0).max() > 1e-3
    assert np.ptp(features.numpy()) == 0.0


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_in_its_mode_of_before_after_evaluating(training: bool) -> None:
    model = small()
    model.train() if training else model.eval()
    with evaluating(model):
        assert not any(layer.training for layer in model.sublayers(include_self=True))
        assert model(clips()).stop_gradient
    assert model.training is training
    assert not model(clips()).stop_gradient
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training is training

"""The settings of a model that the code of the paper's authors has: shortcuts, their gradient, and the stem."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from r3d_fast.models.architectures import MODELS, build_model

KINDS = ("r3d10", "preact18", "wide50", "resnext50", "densenet121", "r2plus1d18", "r2plus1d50")


def stem_shapes(name: str, side: int = 32, **choices: Any) -> tuple[list[int], list[int], list[int]]:
    """(kernel of the stem over frames, height and width; shape after the stem; shape after what follows it)."""
    model = build_model(name, num_classes=3, width=16, **choices)
    model.eval()
    with paddle.no_grad():
        stem = model.backbone.stem(paddle.zeros([1, 3, 16, side, side]))
        pooled = model.backbone.pool(stem)
        assert list(model(paddle.zeros([1, 3, 16, side, side])).shape) == [1, 3]
    kernels = [layer.conv.weight.shape[2:] for layer in model.backbone.stem]
    return [max(sizes) for sizes in zip(*kernels, strict=True)], list(stem.shape), list(pooled.shape)


def test_models_of_18_and_34_layers_have_shortcut_a_and_all_others_b() -> None:
    own = {name: architecture.shortcut for name, architecture in MODELS.items()}
    assert {name for name, shortcut in own.items() if shortcut == "A"} == {"r3d18", "r3d34", "preact18", "preact34"}
    assert {name for name, shortcut in own.items() if shortcut is None} == {n for n in MODELS if "densenet" in n}
    assert own["r3d10"] == own["r3d18_reference"] == own["r2plus1d18"] == own["r3d50"] == "B"


@pytest.mark.parametrize("name", KINDS)
def test_the_stem_is_as_asked_for(name: str) -> None:
    channels = 16
    assert stem_shapes(name) == ([7, 7, 7], [1, channels, 16, 16, 16], [1, channels, 8, 8, 8])
    assert stem_shapes(name, conv1_t_size=3) == ([3, 7, 7], [1, channels, 16, 16, 16], [1, channels, 8, 8, 8])
    assert stem_shapes(name, conv1_t_stride=2) == ([7, 7, 7], [1, channels, 8, 16, 16], [1, channels, 4, 8, 8])
    assert stem_shapes(name, max_pool=False) == ([7, 7, 7], [1, channels, 16, 16, 16], [1, channels, 16, 16, 16])


@pytest.mark.parametrize("name", ["wide50", "resnext50"])
def test_a_stem_factor_of_2_doubles_the_stem_and_nothing_else(name: str) -> None:
    assert stem_shapes(name, stem_factor=2)[1] == [1, 32, 16, 16, 16]
    one, two = (build_model(name, width=16, stem_factor=factor).state_dict() for factor in (1, 2))
    other = {key for key in one if list(one[key].shape) != list(two[key].shape)}
    assert {key.rsplit(".", 1)[0] for key in other} == {
        "backbone.stem.0.conv", "backbone.stem.0.bn",
        "backbone.layer1.0.block.0.conv", "backbone.layer1.0.downsample.0",
    }  # fmt: skip


def test_what_has_no_weights_leaves_names_and_shapes_as_they_are() -> None:
    for name in KINDS:
        plain = {key: list(tensor.shape) for key, tensor in build_model(name, width=16).state_dict().items()}
        for choices in ({"conv1_t_stride": 2}, {"max_pool": False}, {"shortcut_gradient": False}):
            made = build_model(name, width=16, **choices).state_dict()  # type: ignore[arg-type]
            assert {key: list(tensor.shape) for key, tensor in made.items()} == plain


def a_block(name: str, *, gradient: bool) -> Any:
    """The first block of layer2 in training mode, whose convolutions have no say: they put out 1 everywhere."""
    model = build_model(name, num_classes=3, width=2, shortcut="A", shortcut_gradient=gradient)
    model.train()
    block = model.backbone.layer2[0]
    last = block.block[-1]
    last.weight.set_value(paddle.zeros(last.weight.shape))
    last.bias.set_value(paddle.ones(last.bias.shape))
    return block


@pytest.mark.parametrize("gradient", [True, False])
def test_the_gradient_of_shortcut_a_by_hand(gradient: bool) -> None:
    """The block is ReLU(1 + A(x)), so for x > 0 the gradient of its sum is 1 where A takes a voxel, and 0 elsewhere."""
    block = a_block("r3d10", gradient=gradient)
    x = paddle.to_tensor(np.random.default_rng(0).uniform(0.5, 1.0, (2, 2, 4, 6, 6)).astype(np.float32))
    x.stop_gradient = False
    out = block(x)
    out.sum().backward()
    taken = np.zeros(x.shape, np.float32)
    taken[:, :, ::2, ::2, ::2] = 1.0
    expected = np.ones((2, 4, 2, 3, 3), np.float32)
    expected[:, :2] += x.numpy()[:, :, ::2, ::2, ::2]
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), taken if gradient else np.zeros_like(taken), atol=1e-6)


@pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
def test_without_the_gradient_logits_are_the_same_and_earlier_layers_learn_otherwise(data_format: str) -> None:
    given = np.random.default_rng(1).normal(size=(2, 3, 8, 32, 32)).astype(np.float32)
    clips = paddle.to_tensor(given if data_format == "NCDHW" else given.transpose(0, 2, 3, 4, 1).copy())
    logits, gradients = [], []
    for flag in (True, False):
        paddle.seed(0)
        model = build_model("r3d18", num_classes=3, width=4, shortcut_gradient=flag, data_format=data_format)
        model.train()
        out = model(clips)
        F.cross_entropy(out, paddle.to_tensor([0, 1])).backward()
        logits.append(out.numpy())
        gradients.append({n: p.grad.numpy() for n, p in model.named_parameters() if not p.stop_gradient})
    np.testing.assert_array_equal(*logits)
    # Behind the last shortcut that changes the shape, in layer4, nothing differs.
    same = {name for name in gradients[0] if np.allclose(gradients[0][name], gradients[1][name], rtol=1e-4, atol=1e-7)}
    assert same == {name for name in gradients[0] if name.startswith(("backbone.layer4", "head"))}

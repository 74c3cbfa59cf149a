from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from pipelines.errors import UsageError
from r3d_fast.models.architectures import build_model

REFERENCE = "r3d18_reference"


def trainable(model: Any) -> int:
    return sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)


def clips(data_format: str = "NCDHW", seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(size=(2, 3, 8, 56, 56)).astype(np.float32)
    return paddle.to_tensor(values if data_format == "NCDHW" else values.transpose(0, 2, 3, 4, 1).copy())


def small(name: str = REFERENCE, **options: Any) -> Any:
    paddle.seed(0)
    model = build_model(name, **{"num_classes": 5, "width": 8, **options})
    model.eval()
    return model


def test_reference_has_the_published_number_of_parameters() -> None:
    assert trainable(build_model(REFERENCE)) == 33_615_781


def test_shortcuts_differ_only_in_projections() -> None:
    a, b = small("r3d18", shortcut="A").state_dict(), small("r3d18", shortcut="B").state_dict()
    extra = sorted({key.rsplit(".", 2)[0] for key in set(b) - set(a)})
    assert extra == [f"backbone.layer{i}.0.downsample" for i in (2, 3, 4)]
    assert set(a) < set(b)


def test_reference_keys_are_those_of_its_weights() -> None:
    norm = ["weight", "bias", "_mean", "_variance"]
    expected = ["backbone.stem.0.conv.weight", *(f"backbone.stem.0.bn.{n}" for n in norm)]
    for block in (f"backbone.layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)):
        expected += [f"{block}.{conv}.{n}" for conv in ("block.0.conv", "block.1", "downsample.0") for n in norm[:2]]
        expected += [f"{block}.{bn}.{n}" for bn in ("block.0.bn", "block.2", "downsample.1") for n in norm]
    expected += ["head.fc.weight", "head.fc.bias"]
    state = build_model(REFERENCE, num_classes=7).state_dict()
    assert sorted(state) == sorted(expected)
    assert list(state["head.fc.weight"].shape) == [512, 7]
    assert list(state["backbone.stem.0.conv.weight"].shape) == [64, 3, 7, 7, 7]
    assert list(state["backbone.layer2.0.block.0.conv.weight"].shape) == [128, 64, 3, 3, 3]
    assert list(state["backbone.layer3.1.downsample.0.weight"].shape) == [256, 256, 1, 1, 1]


def test_paper_convolutions_have_no_bias() -> None:
    convs = [layer for layer in small("r3d18", shortcut="B").sublayers() if isinstance(layer, paddle.nn.Conv3D)]
    assert len(convs) == 1 + 16 + 3
    assert all(conv.bias is None for conv in convs)


def test_stages_have_the_sizes_of_the_paper() -> None:
    model = small()
    backbone = model.backbone
    sizes: dict[str, list[int]] = {}
    for name in ("stem", "pool", "layer1", "layer2", "layer3", "layer4"):
        getattr(backbone, name).register_forward_post_hook(
            lambda _layer, _inputs, output, name=name: sizes.update({name: list(output.shape)})
        )
    with paddle.no_grad():
        logits = model(paddle.zeros([1, 3, 16, 112, 112]))
    assert sizes == {
        "stem": [1, 8, 16, 56, 56],
        "pool": [1, 8, 8, 28, 28],
        "layer1": [1, 8, 8, 28, 28],
        "layer2": [1, 16, 4, 14, 14],
        "layer3": [1, 32, 2, 7, 7],
        "layer4": [1, 64, 1, 4, 4],
    }
    assert list(logits.shape) == [1, 5]


@pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
@pytest.mark.parametrize("side", [8, 7])
def test_reference_pads_nothing_before_and_one_after_even_sizes(data_format: str, side: int) -> None:
    conv = small(data_format=data_format).backbone.layer2[0].block[0].conv
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(1, 8, 4, side, side)).astype(np.float32))
    before = 0 if side % 2 == 0 else 1
    padded = paddle.to_tensor(np.pad(x.numpy(), [(0, 0), (0, 0), (0, 1), (before, 1), (before, 1)]))
    expected = F.conv3d(padded, conv.weight, conv.bias, stride=2, padding=0)
    to_format = [0, 1, 2, 3, 4] if data_format == "NCDHW" else [0, 2, 3, 4, 1]
    got = conv(x.transpose(to_format))
    np.testing.assert_allclose(got.numpy(), expected.transpose(to_format).numpy(), atol=1e-5)


def test_paper_pads_one_on_both_sides() -> None:
    conv = small("r3d18").backbone.layer2[0].block[0].conv
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(1, 8, 4, 8, 8)).astype(np.float32))
    padded = paddle.to_tensor(np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)]))
    expected = F.conv3d(padded, conv.weight, None, stride=2, padding=0)
    np.testing.assert_allclose(conv(x).numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
def test_shortcut_a_takes_every_second_voxel_and_adds_zero_channels(data_format: str) -> None:
    shortcut = small("r3d34", data_format=data_format).backbone.layer2[0].downsample
    x = np.random.default_rng(2).normal(size=(1, 8, 4, 7, 7)).astype(np.float32)
    to_format = (0, 1, 2, 3, 4) if data_format == "NCDHW" else (0, 2, 3, 4, 1)
    expected = np.concatenate([x[:, :, ::2, ::2, ::2], np.zeros((1, 8, 2, 4, 4), np.float32)], axis=1)
    got = shortcut(paddle.to_tensor(x.transpose(to_format).copy()))
    np.testing.assert_array_equal(got.numpy(), expected.transpose(to_format))


@pytest.mark.parametrize("name", [REFERENCE, "r3d10", "r3d34"])
def test_both_data_formats_give_the_same_logits(name: str) -> None:
    first, last = small(name), small(name, data_format="NDHWC")
    assert [list(p.shape) for p in first.parameters()] == [list(p.shape) for p in last.parameters()]
    last.set_state_dict(first.state_dict())
    with paddle.no_grad():
        a, b = first(clips()).numpy(), last(clips("NDHWC")).numpy()
    assert a.dtype == np.float32
    assert np.abs(a[0] - a[1]).max() > 1e-3  # Logits that don't depend on the clip would agree, too.
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_to_static_gives_the_eager_logits() -> None:
    for name in (REFERENCE, "r3d34"):
        model = small(name)
        with paddle.no_grad():
            eager = model(clips()).numpy()
            static = paddle.jit.to_static(model)(clips()).numpy()
        np.testing.assert_allclose(static, eager, atol=1e-4)


def test_a_training_step_reaches_every_parameter() -> None:
    model = small(num_classes=3, dropout=0.5)
    model.train()
    F.cross_entropy(model(clips()), paddle.to_tensor([0, 2])).backward()
    # The bias of a convolution before a batch norm has no effect: its gradient is there, but may be 0.
    assert all(p.grad is not None for p in model.parameters() if not p.stop_gradient)
    assert float(model.backbone.stem[0].conv.weight.grad.abs().sum()) > 0.0


def test_dropout_acts_in_training_only_and_before_the_last_layer() -> None:
    model = small(dropout=0.5)
    features = paddle.ones([64, 64, 1, 1, 1])
    assert np.ptp(model.head(features).numpy(), axis=0).max() < 1e-6
    model.train()
    logits = model.head(features).numpy()
    assert np.ptp(logits, axis=0).max() > 1e-3
    assert logits.all()  # Dropped logits would be 0.


def test_initial_weights_of_the_reference() -> None:
    paddle.seed(0)
    model = build_model(REFERENCE)
    for name, fan_in in (("backbone.stem.0.conv", 3 * 343), ("backbone.layer3.0.block.0.conv", 128 * 27)):
        weight = model.state_dict()[f"{name}.weight"].numpy()
        assert weight.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
        assert abs(weight.mean()) < 0.02 * weight.std() + 1e-5
    for key, value in model.state_dict().items():
        if key.endswith((".bias", "._mean")):
            assert not value.numpy().any(), key
        elif value.ndim == 1:  # of batch norms
            assert (value.numpy() == 1.0).all(), key
    fc = model.head.fc.weight.numpy()
    bound = math.sqrt(6 / (512 + 101))
    assert 0.99 * bound < np.abs(fc).max() <= bound
    assert fc.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    norm = model.backbone.stem[0].bn
    assert (norm._momentum, norm._epsilon) == (0.9, 1e-5)


def test_initial_weights_of_the_paper() -> None:
    paddle.seed(0)
    model = build_model("r3d10")
    for name, fan_out in (("backbone.stem.0.conv", 64 * 343), ("backbone.layer3.0.block.0.conv", 256 * 27)):
        weight = model.state_dict()[f"{name}.weight"].numpy()
        assert weight.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)
    bound = 1 / math.sqrt(512)
    for value in (model.head.fc.weight.numpy(), model.head.fc.bias.numpy()):
        assert 0.9 * bound < np.abs(value).max() <= bound


def test_same_seed_gives_the_same_weights() -> None:
    one, two = small("r3d10").state_dict(), small("r3d10").state_dict()
    assert all(np.array_equal(one[key].numpy(), two[key].numpy()) for key in one)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r3d_18", {}, r"model 'r3d_18' is unknown: expected one of .*r3d34, .*; did you mean 'r3d18'\?"),
        ("zebra", {}, r"model 'zebra' is unknown: expected one of [^;]*$"),
        (REFERENCE, {"shortcut": "A"}, "shortcut 'A': r3d18_reference .* expected 'B' or None"),
        ("r3d18", {"shortcut": "C"}, "shortcut 'C': expected 'A', 'B' or None"),
        ("r3d18", {"data_format": "NHWC"}, "data_format 'NHWC': expected 'NCDHW' or 'NDHWC'"),
        ("r3d18", {"width": 0}, "width 0: expected at least 1"),
        ("resnext50", {"width": 24}, "width 24: resnext50 needs a multiple of 16"),
        ("densenet121", {"width": 7}, "width 7: densenet121 needs a multiple of 2"),
        ("densenet121", {"shortcut": "A"}, "shortcut 'A': densenet121 has no residual blocks; expected None"),
        ("r3d18", {"num_classes": 0}, "num_classes 0: expected at least 1"),
        ("r3d18", {"dropout": 1.0}, "dropout 1.0: expected 0 <= dropout < 1"),
        ("r3d18", {"dropout": -0.1}, "dropout -0.1: expected 0 <= dropout < 1"),
        ("r3d18", {"conv1_t_size": 4}, "conv1_t_size 4: expected an odd number of frames"),
        ("r3d18", {"conv1_t_size": -1}, "conv1_t_size -1: expected an odd number of frames"),
        ("r3d18", {"conv1_t_stride": 3}, "conv1_t_stride 3: expected 1 or 2 frames"),
        (
            REFERENCE,
            {"max_pool": False},
            "max_pool False: r3d18_reference has the stem of the reference run; expected True, ",
        ),
        (REFERENCE, {"conv1_t_stride": 2}, "conv1_t_stride 2: r3d18_reference .*expected 1, or a model with a choice"),
        (REFERENCE, {"conv1_t_size": 3}, "conv1_t_size 3: r3d18_reference .*expected 7, or a model with a choice"),
        ("r3d50", {"stem_factor": 2}, "stem_factor 2: expected 1, the channels of the stem of r3d50 as a multiple"),
        ("densenet121", {"stem_factor": 2}, "stem_factor 2: expected 1, .* densenet121 "),
        ("wide50", {"stem_factor": 3}, "stem_factor 3: expected 1 or 2, the channels of the stem of wide50 "),
    ],
)
def test_wrong_arguments_say_what_came_and_what_was_expected(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(name, **options)


def test_reference_accepts_its_own_shortcut_by_name() -> None:
    assert set(small(shortcut="B").state_dict()) == set(small().state_dict())

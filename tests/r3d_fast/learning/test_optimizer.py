"""Optimisers against their formulas, their groups, what clipping shortens, and moments that come back to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from pydantic import ValidationError

from pipelines.errors import UsageError
from r3d_fast.config.sections import OptimizerSpec
from r3d_fast.errors import CheckpointError
from r3d_fast.learning.optimizer import clip_gradients, load_moments, moments, new_optimizer
from r3d_fast.models.architectures import build_model, freeze


def settings(**values: Any) -> OptimizerSpec:
    return OptimizerSpec.model_validate(values)


def a_layer() -> Any:
    layer = paddle.nn.Linear(2, 1)
    layer.weight.set_value(np.array([[1.0], [-2.0]], np.float32))
    layer.bias.set_value(np.array([0.5], np.float32))
    return layer


def after_steps(spec: OptimizerSpec, rates: tuple[float, ...]) -> Any:
    """Weights and bias of a layer, float32 [3], after steps on the gradients 1, 2 and 1."""
    layer = a_layer()
    optimizer = new_optimizer(spec, layer)
    for rate in rates:
        optimizer.set_lr(rate)
        layer(paddle.to_tensor([[1.0, 2.0]])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return np.concatenate([layer.weight.numpy().ravel(), layer.bias.numpy()])


START, GRADIENT = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 1.0])


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_momentum_is_the_reference_recipe_by_hand(decay: str) -> None:
    decays = np.array([1e-1, 1e-1, 1e-1 if decay == "all" else 0.0])
    expected, velocity = START, np.zeros(3)
    for rate in (0.01, 0.001):
        velocity = 0.9 * velocity + (GRADIENT + decays * expected)
        expected = expected - rate * velocity
    actual = after_steps(settings(weight_decay=0.1, decay=decay), (0.01, 0.001))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_adamw_is_its_formula_by_hand(decay: str) -> None:
    decays = np.array([0.1, 0.1, 0.1 if decay == "all" else 0.0])
    expected, first, second = START, np.zeros(3), np.zeros(3)
    for step, rate in enumerate((0.01, 0.02, 0.005), 1):
        first, second = 0.8 * first + 0.2 * GRADIENT, 0.95 * second + 0.05 * GRADIENT**2
        unbiased = first / (1 - 0.8**step), second / (1 - 0.95**step)
        expected = expected - rate * decays * expected - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-6)
    spec = settings(name="adamw", betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.1, decay=decay)
    np.testing.assert_allclose(after_steps(spec, (0.01, 0.02, 0.005)), expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_batch_norms_and_biases_shrink_only_where_all_is_decayed(name: str) -> None:
    """At a gradient of 0, what moves is what is decayed."""
    for decay in ("all", "weights"):
        paddle.seed(0)
        model = build_model("r3d18_reference", num_classes=3, width=2)
        for parameter in model.parameters():
            if not parameter.stop_gradient:
                parameter.set_value(parameter + 1.0)
                parameter.grad = paddle.zeros_like(parameter)
        before = {key: parameter.numpy() for key, parameter in model.named_parameters()}
        new_optimizer(settings(name=name, lr=0.5, weight_decay=0.1, decay=decay), model).step()
        moved = {key for key, parameter in model.named_parameters() if (parameter.numpy() != before[key]).any()}
        trained = {key for key, parameter in model.named_parameters() if not parameter.stop_gradient}
        matrices = {key for key, value in before.items() if value.ndim > 1}
        assert moved == (trained if decay == "all" else matrices)
        assert any("bn.bias" in key for key in trained - matrices)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_moments_come_back_to_the_bit_under_the_models_own_names(name: str) -> None:
    spec, rng = settings(name=name, decay="weights"), np.random.default_rng(0)
    batches = [paddle.to_tensor(rng.normal(size=(3, 2)).astype(np.float32)) for _ in range(6)]

    def take(layer: Any, optimizer: Any, some: list[Any]) -> None:
        for batch in some:
            layer(batch).square().sum().backward()
            optimizer.step()
            optimizer.clear_grad()

    whole = a_layer()
    optimizer = new_optimizer(spec, whole)
    take(whole, optimizer, batches[:3])
    saved = moments(whole, optimizer)
    kinds = {"velocity"} if name == "momentum" else {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    assert {key.partition("|")[2].rpartition("_")[0] for key in saved} == kinds
    assert {key.partition("|")[0] for key in saved} == {"weight", "bias"}
    resumed = a_layer()
    resumed.set_state_dict(whole.state_dict())
    again = new_optimizer(spec, resumed)
    load_moments(resumed, again, saved)
    take(whole, optimizer, batches[3:])
    take(resumed, again, batches[3:])
    for key, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[key].numpy(), value.numpy(), err_msg=key)
    after = moments(resumed, again)
    for key, value in moments(whole, optimizer).items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_is_paddles_own_by_global_norm(limit: float) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,), (2, 1, 2))]
    parameters = [paddle.create_parameter(list(a.shape), "float32") for a in arrays]
    pairs = [(p, paddle.to_tensor(a)) for p, a in zip(parameters, arrays, strict=True)]
    expected = [gradient.numpy() for _, gradient in paddle.nn.ClipGradByGlobalNorm(limit)(pairs)]
    gradients = [paddle.to_tensor(a) for a in arrays]
    norm = clip_gradients(gradients, limit).item()
    assert norm == pytest.approx(np.sqrt(sum(float((a.astype(float) ** 2).sum()) for a in arrays)), rel=1e-6)
    for gradient, wanted, array in zip(gradients, expected, arrays, strict=True):
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-6)
        assert (gradient.numpy() == array).all() == (limit > norm)


def test_a_length_beyond_float32_shortens_nothing_and_is_told() -> None:
    gradient = paddle.full([3], 1e30)
    assert clip_gradients([gradient], 1.0) == np.inf
    np.testing.assert_array_equal(gradient.numpy(), np.full(3, 1e30, np.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adamw", "nesterov": True}, "nesterov True has no meaning for name 'adamw'; expected False"),
        ({"name": "adamw", "momentum": 0.8}, "momentum 0.8 has no meaning for name 'adamw'; expected 0.9"),
        ({"betas": [0.9, 0.99]}, r"betas \(0.9, 0.99\) has no meaning for name 'momentum'"),
        ({"name": "adamw", "betas": [0.9, 1.0]}, "less than 1"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"decay": "bias"}, "'all' or 'weights'"),
    ],
)
def test_settings_without_a_meaning_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**fields)


def test_frozen_parts_keep_weights_and_statistics_and_have_no_moments() -> None:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=3, width=2)
    freeze(model, "layer4")
    optimizer = new_optimizer(settings(name="adamw"), model)
    before = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    model.eval()
    model.train()
    assert not model.backbone.layer3[0].block[0].bn.training
    assert model.backbone.layer4[0].block[0].bn.training
    model(paddle.randn([2, 3, 4, 32, 32])).sum().backward()
    optimizer.step()
    moved = {key for key, tensor in model.state_dict().items() if (tensor.numpy() != before[key]).any()}
    assert moved == {key for key in before if key.startswith(("backbone.layer4.", "head."))}
    assert all(key.startswith(("backbone.layer4.", "head.")) for key in moments(model, optimizer))


def test_frozen_parts_in_training_mode_keep_their_weights_but_not_their_statistics() -> None:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=3, width=2)
    freeze(model, "layer4", statistics="train")
    optimizer = new_optimizer(settings(weight_decay=0.1), model)
    before = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    model.eval()
    model.train()
    clips = paddle.randn([2, 3, 4, 32, 32])
    seen: list[Any] = []
    hook = model.backbone.stem[0].conv.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(output))
    normalised = model.backbone.stem(clips).numpy()
    hook.remove()
    model(clips).sum().backward()
    optimizer.step()
    moved = {key for key, tensor in model.state_dict().items() if (tensor.numpy() != before[key]).any()}
    trained = {key for key in before if key.startswith(("backbone.layer4.", "head."))}
    assert moved == trained | {key for key in before if key.endswith(("._mean", "._variance"))}
    assert all(key.startswith(("backbone.layer4.", "head.")) for key in moments(model, optimizer))
    # By hand: the stem was asked twice with these clips, and each time its mean goes a tenth of the way to theirs.
    mean = seen[0].numpy().mean(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(model.backbone.stem[0].bn._mean.numpy(), 0.19 * mean, atol=1e-6)
    np.testing.assert_allclose(normalised.mean(axis=(0, 2, 3, 4)), 0.0, atol=1e-5)


def test_layers_of_a_resnet_mean_the_blocks_of_a_densenet() -> None:
    """The authors' ft_begin_index 4 trains denseblock4, norm5 and the classifier of a DenseNet."""
    for number, names in ((4, {"block4", "norm", "head"}), (3, {"block3", "transition3", "block4", "norm", "head"})):
        model = build_model("densenet121", num_classes=3, width=2)
        freeze(model, f"layer{number}")
        trained = {key for key, parameter in model.named_parameters() if not parameter.stop_gradient}
        assert {key.split(".")[1] if key.startswith("backbone") else "head" for key in trained} == names
    with pytest.raises(UsageError, match="'block4': no such part; expected one of stem, layer1"):
        freeze(build_model("r3d10", num_classes=3, width=2), "block4")


def test_stem_freezes_nothing_and_head_all_but_itself() -> None:
    model = build_model("r3d10", num_classes=3, width=2)
    freeze(model, "stem")
    assert model.backbone.stem[0].conv.weight.stop_gradient is False
    freeze(model, "head")
    trained = [key for key, parameter in model.named_parameters() if not parameter.stop_gradient]
    assert sorted(trained) == ["head.fc.bias", "head.fc.weight"]


def test_an_unknown_part_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        freeze(build_model("r3d10", num_classes=3, width=2), "layer_4")
    assert str(caught.value) == (
        "init.freeze_until 'layer_4': no such part; expected one of stem, layer1, layer2, layer3, layer4, head; "
        "did you mean 'layer4'?"
    )


@pytest.mark.parametrize(
    ("key", "moment", "said"),
    [
        ("head.fc.weight|velocity_0", np.zeros((3, 4), np.float64), r"is float64 \[3, 4\], expected float32 \["),
        ("head.fc.bias|velocity_0", np.zeros(9999, np.float32), r"is float32 \[9999\], expected float32 \[3\]"),
        ("head.fc|velocity_0", np.zeros(3, np.float32), r"unexpected head\.fc\|velocity_0"),
        ("", np.zeros(3, np.float32), "unexpected "),
    ],
)
def test_moments_of_another_model_are_named(key: str, moment: np.ndarray, said: str) -> None:
    model = build_model("r3d10", num_classes=3, width=4)
    with pytest.raises(CheckpointError, match=f"the optimiser's moments don't fit the model: .*{said}"):
        load_moments(model, new_optimizer(OptimizerSpec(), model), {key: moment})

"""The backbone as a graph in training: what it computes, on the CPU; in half precision, which types it is made of."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu, in_force, precisions_here
from paddle.nn import functional as F
from programs import HALVES, assert_types, convolution_inputs, convolution_weights, momentum, types

import r3d_fast.acceleration.gpu
from pipelines.errors import EnvironmentProblem
from r3d_fast.acceleration.gpu import accelerate_training
from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.backend.paddle import older_graphs
from r3d_fast.backend.precision import Precision
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.step import TrainStep
from r3d_fast.models.architectures import MODELS, build_model

FORMATS = ("NCDHW", "NDHWC")


def clips(data_format: str = "NCDHW", seed: int = 0, batch: int = 4, side: int = 32) -> Any:
    values = np.random.default_rng(seed).normal(size=(batch, 3, 8, side, side)).astype(np.float32)
    return paddle.to_tensor(values if data_format == "NCDHW" else values.transpose(0, 2, 3, 4, 1).copy())


def small(name: str = "r3d18_reference", **options: Any) -> Any:
    paddle.seed(0)
    return build_model(name, **{"num_classes": 3, "width": 8, **options})


def train(model: Any, forward: Any, steps: int = 3) -> tuple[list[Any], list[dict[str, Any]]]:
    """(logits and loss of each step, gradients of each step)."""
    values, gradients = [], []
    optimizer = momentum(model)
    for step in range(steps):
        logits = forward(clips(model.architecture.data_format, step))
        loss = F.cross_entropy(logits, paddle.to_tensor([0, 1, 2, 0]))
        loss.backward()
        values += [logits.numpy(), loss.numpy()]
        gradients.append({n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        optimizer.clear_grad()
    return values, gradients


def assert_same(one: Any, two: Any) -> None:
    (values, gradients), (own_values, own_gradients) = one, two
    for expected, got in zip(values, own_values, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    for expected, got in zip(gradients, own_gradients, strict=True):
        assert list(got) == list(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, atol=1e-5, rtol=1e-5, err_msg=key)


def assert_same_state(model: Any, own: Any) -> None:
    expected, got = model.state_dict(), own.state_dict()
    assert list(got) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key].numpy(), value.numpy(), atol=1e-5, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", ["r3d18_reference", "r3d18", "r3d34"])
def test_training_is_the_plain_paths(name: str, data_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = small(name, data_format=data_format, dropout=0.5)
    expected = train(plain, plain)
    drawn = paddle.normal(shape=[4]).numpy()
    model = small(name, data_format=data_format, dropout=0.5)
    forward = accelerate_training(model)
    assert_same(expected, train(model, forward))
    assert_same_state(plain, model)
    np.testing.assert_array_equal(paddle.normal(shape=[4]).numpy(), drawn)  # as much dropout as there was
    assert "warning" not in capsys.readouterr().err  # else it was the plain path twice
    assert len(forward.graphs) == 1  # type: ignore[attr-defined]


def test_names_and_tensors_of_the_model_stay_and_it_evaluates_as_before() -> None:
    model = small()
    before = dict(model.state_dict())
    names = [tensor.name for tensor in before.values()]
    methods = [vars(layer).get("forward") for layer in model.sublayers()]
    accelerate_training(model)(clips()).sum().backward()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert [tensor.name for tensor in after.values()] == names
    assert [vars(layer).get("forward") for layer in model.sublayers()] == methods


def test_what_was_tried_before_the_first_step_leaves_no_trace() -> None:
    plain, model = small(), small()
    for each in (plain, model):
        F.cross_entropy(each(clips(seed=5)), paddle.to_tensor([0, 1, 2, 0])).backward()  # gradients add up
    forward = accelerate_training(model)
    paddle.seed(7)
    expected = paddle.normal(shape=[4]).numpy()
    paddle.seed(7)
    forward(clips())
    np.testing.assert_array_equal(paddle.normal(shape=[4]).numpy(), expected)
    plain(clips())
    assert_same_state(plain, model)
    assert_same(train(plain, plain, steps=1), train(model, forward, steps=1))


def freeze(model: Any) -> None:
    """As for fine-tuning: the first layers do not learn, the next keep their running statistics."""
    model.train()
    model.backbone.stem.eval()
    for parameter in model.backbone.stem.parameters():
        parameter.stop_gradient = True
    model.backbone.layer1.eval()


def test_frozen_parts_stay_frozen() -> None:
    plain, model = small(), small()
    forward = accelerate_training(model)
    assert_same(train(plain, plain, steps=1), train(model, forward, steps=1))
    for each in (plain, model):
        freeze(each)
    mean = model.backbone.layer1[0].block[2]._mean.numpy().copy()
    assert_same(train(plain, plain), train(model, forward))
    np.testing.assert_array_equal(model.backbone.layer1[0].block[2]._mean.numpy(), mean)
    assert len(forward.graphs) == 2  # type: ignore[attr-defined]
    for each in (plain, model):
        each.train()  # the parameters of the stem stay frozen
    assert_same(train(plain, plain), train(model, forward))
    assert_same_state(plain, model)
    assert len(forward.graphs) == 3  # type: ignore[attr-defined]
    for each in (plain, model):
        for parameter in each.backbone.parameters():
            parameter.stop_gradient = True  # only the head learns
    assert_same(train(plain, plain), train(model, forward))
    assert_same_state(plain, model)  # also the statistics that move in parts that do not learn
    model.eval()
    np.testing.assert_array_equal(forward(clips()).numpy(), model(clips()).numpy())
    assert len(forward.graphs) == 4  # type: ignore[attr-defined]


def test_the_shape_of_clips_may_change() -> None:
    plain, model = small(), small()
    forward = accelerate_training(model)
    for batch, side in ((4, 32), (2, 32), (4, 48), (4, 32)):
        shaped = clips(batch=batch, side=side)
        expected, got = plain(shaped), forward(shaped)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)
        for logits in (expected, got):
            logits.square().sum().backward()
    for (key, one), (_, two) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        if one.grad is not None:
            scale = max(1.0, float(one.grad.abs().max()))
            np.testing.assert_allclose(two.grad.numpy() / scale, one.grad.numpy() / scale, atol=1e-5, err_msg=key)
    assert_same_state(plain, model)


@pytest.mark.parametrize("broken", ["_trace_backbone", "backward"])
def test_where_paddle_can_not_do_it_the_model_goes_on_after_one_warning(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("first line\n\nno such graph")

    class Fails(paddle.autograd.PyLayer):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            return x * 1.0

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return fail()

    plain, model = small(), small()
    whole = r3d_fast.acceleration.gpu._trace_backbone(small())
    monkeypatch.setattr(
        r3d_fast.acceleration.gpu,
        "_trace_backbone",
        fail if broken == "_trace_backbone" else lambda model: lambda x: Fails.apply(whole(x)),
    )
    assert_same(train(plain, plain), train(model, accelerate_training(model)))
    assert_same_state(plain, model)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: this Paddle trains without its faster GPU path (")
    assert broken == "backward" or lines[0].endswith("(no such graph)")


def test_a_graph_that_raises_leaves_the_names_of_tensors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    number = int(paddle.utils.unique_name.generate("probe").rpartition("_")[2])
    with pytest.raises((RuntimeError, ValueError), match="float16"):  # of the model itself
        accelerate_training(small())(clips().astype("float16"))  # for which a CPU has no kernel
    assert paddle.utils.unique_name.generate("probe") == f"probe_{number + 1}"
    assert capsys.readouterr().err.startswith("warning: this Paddle trains without its faster GPU path")


def test_memory_that_runs_out_is_no_reason_for_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    real, built = r3d_fast.acceleration.gpu._trace_backbone, []

    def graph(model: Any, padded_stem: bool) -> Any:
        traced = real(model, padded_stem)
        built.append(traced)

        def forward(x: Any) -> Any:
            if full and x.shape[0] > 2:
                raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 9.5GB memory")
            return traced(x)

        return forward

    monkeypatch.setattr(r3d_fast.acceleration.gpu, "_trace_backbone", graph)
    model = small()
    forward = accelerate_training(model)
    step = TrainStep(model, momentum(model), Precision(), LossScaler(enabled=False), "cpu", forward=forward)
    fed = DeviceBatch(clips(), paddle.to_tensor([0, 1, 2, 0]), paddle.ones([4]) / 4)
    with pytest.raises(EnvironmentProblem, match="a batch of 2 fits"):
        step(fed)
    assert len(built) == 2  # the first is gone, and what it held
    full = False
    assert step(fed).applied
    assert not forward.failed  # type: ignore[attr-defined]


def test_weights_of_another_type_than_the_clips_get_gradients_in_their_own() -> None:
    """What O1 does with float32 weights and half clips, in two types that the CPU computes in."""
    plain, model = small(), small()
    for layer in model.backbone.sublayers():
        if isinstance(layer, paddle.nn.Conv3D):
            for name, parameter in list(layer.named_parameters()):
                double = paddle.create_parameter(parameter.shape, "float64")
                double.set_value(parameter.astype("float64"))
                setattr(layer, name, double)
    logits, expected = accelerate_training(model)(clips()), plain(clips())
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-5)
    for each in (logits, expected):
        F.cross_entropy(each, paddle.to_tensor([0, 1, 2, 0])).backward()
    for (key, one), (_, two) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert two.grad is None or two.grad.dtype == two.dtype, key
        assert (one.grad is None) == (two.grad is None), key
        if one.grad is not None:
            np.testing.assert_allclose(two.grad.numpy(), one.grad.numpy(), atol=1e-5, err_msg=key)
    assert model.backbone.stem[0].conv.weight.grad.dtype == paddle.float64


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", ["r3d18_reference", "r3d34"])
@pytest.mark.parametrize("precision", HALVES, ids=str)
def test_a_graph_computes_in_the_type_that_autocast_asks_for(
    precision: Precision, name: str, data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU has no half-precision kernels. A program it does build: 3.x only in the form of 2.6."""
    model = small(name, data_format=data_format)
    model, _ = precision.decorate(model, momentum(model))
    claim_gpu(monkeypatch)
    with precision.autocast(), r3d_fast.acceleration.gpu._apart_from_autocast(), older_graphs():
        sample = clips(data_format).astype(precision.dtype)
        found = types(r3d_fast.acceleration.gpu._trace_backbone(model), sample)
    assert_types(model, found, precision.dtype, len(convolution_weights(model)) if precision.level == "O1" else 0)


@pytest.mark.parametrize("name", ["r3d18_reference", "r3d34"])
def test_weights_are_cast_in_the_form_that_this_paddle_trains_with(name: str) -> None:
    """In a type for which a CPU has kernels: clips float64, weights float32."""
    model = small(name)
    with r3d_fast.acceleration.gpu._apart_from_autocast():
        found = types(r3d_fast.acceleration.gpu._trace_backbone(model), clips().astype("float64"))
    assert_types(model, found, "float64", len(convolution_weights(model)))


@pytest.mark.parametrize(
    ("name", "data_format"), [("r3d18_reference", "NDHWC"), ("r2plus1d18", "NDHWC"), ("densenet121", "NCDHW")]
)
def test_a_padded_stem_computes_on_four_channels_and_changes_nothing(
    name: str, data_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], blocks=(1, 1, 1, 1)))
    plain, model = (small(name, data_format=data_format) for _ in range(2))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    stem = next(key for key, shape in shapes.items() if shape[1:2] == [3])
    (logits, _), (gradients,) = train(plain, accelerate_training(plain), steps=1)
    forward = accelerate_training(model, padded_stem=True)
    (own_logits, _), (own_gradients,) = train(model, forward, steps=1)
    np.testing.assert_allclose(own_logits, logits, atol=1e-5)
    assert list(own_gradients) == list(gradients)
    for key, value in gradients.items():  # batch norms over few values amplify what is rounded differently
        np.testing.assert_allclose(own_gradients[key], value, atol=1e-4 * max(1.0, np.abs(value).max()), err_msg=key)
    assert_same_state(plain, model)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes
    assert "warning" not in capsys.readouterr().err
    assert len(forward.graphs) == 1  # type: ignore[attr-defined]
    weight = model.state_dict()[stem]
    found = convolution_inputs(r3d_fast.acceleration.gpu._trace_backbone(model, True), clips(data_format))
    assert found[0] == (4, [weight.shape[0], 4, *weight.shape[2:]])


@pytest.mark.parametrize("precision", HALVES, ids=str)
def test_no_autocast_reaches_into_a_graph(
    precision: Precision, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it cast a second time what a graph casts by itself: here it would, to types that a CPU can't do."""
    plain, model = small(), small()
    model.head = paddle.nn.Identity()  # else autocast, rightly, reaches that
    forward = accelerate_training(model)
    expected = plain.backbone(clips())
    expected.sum().backward()
    claim_gpu(monkeypatch)
    with precision.autocast():
        features = [forward(clips()) for _ in range(2)]
        assert in_force()[:2] == (precision.level, precision.dtype)
    features[0].sum().backward()
    for each in features:
        np.testing.assert_allclose(each.numpy(), expected.numpy(), atol=1e-5)
    for one, two in zip(convolution_weights(plain), convolution_weights(model), strict=True):
        np.testing.assert_allclose(two.grad.numpy(), one.grad.numpy(), atol=1e-4, rtol=1e-4)
    assert capsys.readouterr().err == ""


def steps_of(precision: Precision, data_format: str, graph: bool, steps: int = 20) -> SimpleNamespace:
    """Losses of some steps on two batches, and the model and what computed its logits."""
    model = small(width=16, data_format=data_format)
    optimizer = momentum(model)
    model, optimizer = precision.decorate(model, optimizer)
    forward = accelerate_training(model) if graph else model
    scaler = LossScaler(enabled=precision.name == "fp16")
    step = TrainStep(model, optimizer, precision, scaler, "gpu", forward=forward)
    labels = paddle.to_tensor([0, 1, 2, 0, 1, 2, 0, 1])
    losses = []
    for number in range(steps):
        batch = clips(data_format, number % 2, batch=8, side=56).astype(precision.clip_dtype)
        losses.append(step(DeviceBatch(batch, labels, paddle.ones([8]) / 8)).loss)
    return SimpleNamespace(losses=losses, model=model, forward=forward)


@pytest.mark.gpu
@pytest.mark.parametrize("data_format", FORMATS)
def test_on_a_gpu_the_graph_learns_as_the_plain_path(
    on_gpu: str, data_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for precision in (Precision(), *precisions_here()):
        plain = steps_of(precision, data_format, graph=False)
        ours = steps_of(precision, data_format, graph=True)
        assert "warning" not in capsys.readouterr().err, precision
        assert not ours.forward.failed
        tolerance = 1e-2 if precision.name == "fp32" else 5e-2
        np.testing.assert_allclose(ours.losses, plain.losses, atol=tolerance, rtol=tolerance, err_msg=str(precision))
        assert ours.losses[-1] < ours.losses[0]
        sample = clips(data_format, batch=8, side=56).astype(precision.dtype)
        for graph in ours.forward.graphs.values():
            assert graph(sample).dtype == getattr(paddle, precision.dtype)
            convolutions = [dtypes for op, dtypes in types(graph, sample) if op == "conv3d"]
            assert len(convolutions) >= 17
            assert all(dtypes == {precision.dtype} for dtypes in convolutions), precision


@pytest.mark.gpu
@pytest.mark.parametrize("data_format", FORMATS)
def test_on_a_gpu_the_first_step_is_the_plain_one(on_gpu: str, data_format: str) -> None:
    for precision in (Precision(), *precisions_here()):
        found = []
        for graph in (False, True):
            model = small(width=16, data_format=data_format, dropout=0.5)
            model, _ = precision.decorate(model, momentum(model))
            forward = accelerate_training(model) if graph else model
            batch = clips(data_format, batch=8, side=56)
            paddle.seed(3)
            logits = precision.forward(forward, batch)
            F.cross_entropy(logits, paddle.to_tensor([0, 1, 2, 0, 1, 2, 0, 1])).backward()
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.append((logits.numpy(), gradients))
        (expected, theirs), (got, ours) = found
        tolerance = 1e-3 if precision.name == "fp32" else 5e-2
        np.testing.assert_allclose(got, expected, atol=tolerance, err_msg=str(precision))
        assert list(ours) == list(theirs)
        whole = sum(float(g.astype("float32").square().sum()) for g in theirs.values()) ** 0.5
        for key, gradient in theirs.items():
            assert ours[key].dtype == gradient.dtype, key
            error = (ours[key].astype("float32") - gradient.astype("float32")).square().sum()
            # Rounding in half precision; an element in the wrong place or a weight left out is far more.
            assert float(error) ** 0.5 <= (1e-2 if precision.name == "fp32" else 0.2) * whole, (precision, key)

"""The layers of channels-last models against Paddle's own layers for five axes: same bits, names and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu
from paddle.nn import functional as F
from programs import types

import r3d_fast.acceleration.gpu
import r3d_fast.models.channels_last
from r3d_fast.backend.paddle import older_graphs
from r3d_fast.backend.precision import Precision
from r3d_fast.models.architectures import build_model
from r3d_fast.models.channels_last import ChannelsLastBatchNorm, ChannelsLastMaxPool, average_pool, strided

SHAPES = [(2, 4, 6, 5, 8), (3, 5, 7, 9, 3), (1, 1, 1, 2, 4), (4, 8, 14, 14, 16)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Any:
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def output_and_gradient(layer: Any, x: Any) -> tuple[Any, Any]:
    """(output, gradient of `x`) for a loss in which each voxel of the output counts differently."""
    x = x.detach()
    x.stop_gradient = False
    y = layer(x)
    (y * drawn(tuple(y.shape), 1)).sum().backward()
    return y.numpy(), x.grad.numpy()


def norm(kind: Any, channels: int) -> Any:
    """A batch norm whose parameters and statistics are as after some training."""
    layer = kind(channels, momentum=0.9, epsilon=1e-5, data_format="NDHWC")
    for number, value in enumerate(layer.state_dict().values()):
        random = np.random.default_rng(number)
        value.set_value(random.uniform(0.5, 2.0, channels).astype(np.float32))
    return layer


def norm_results(layer: Any, x: Any) -> dict[str, Any]:
    """Everything that a batch norm computes and changes in one training step."""
    y, gradient = output_and_gradient(layer, x)
    found = {"y": y, "x": gradient, "weight": layer.weight.grad.numpy(), "bias": layer.bias.grad.numpy()}
    return {**found, **{f"after {key}": value.numpy() for key, value in layer.state_dict().items()}}


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_batch_norm_has_the_bits_of_paddles(shape: tuple[int, ...], training: bool) -> None:
    plain, ours = norm(paddle.nn.BatchNorm3D, shape[-1]), norm(ChannelsLastBatchNorm, shape[-1])
    for layer in (plain, ours):
        layer.train() if training else layer.eval()
    expected, got = norm_results(plain, drawn(shape)), norm_results(ours, drawn(shape))
    assert list(got) == list(expected)  # the same names of parameters and statistics
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    assert np.ptp(expected["after _mean"]) > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_batch_norm_by_rows_differs_in_rounding_alone(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What large bfloat16 tensors go through on a GPU, in a type that the CPU computes in."""
    expected = norm_results(norm(paddle.nn.BatchNorm3D, shape[-1]), drawn(shape))
    monkeypatch.setattr(r3d_fast.models.channels_last, "_BY_ROWS", ("float32",))
    monkeypatch.setattr(r3d_fast.models.channels_last, "_FEWEST_ROWS", 1)
    ours = norm(ChannelsLastBatchNorm, shape[-1])
    for key, value in norm_results(ours, drawn(shape)).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("dtype", "training", "clips", "axes"),
    [
        ("bfloat16", True, 10, 2),  # 10,240 rows
        ("bfloat16", True, 9, 4),
        ("bfloat16", False, 10, 4),
        ("float16", True, 10, 4),
        ("float32", True, 10, 4),
    ],
)
def test_only_large_bfloat16_tensors_are_normalised_by_rows(
    dtype: str, training: bool, clips: int, axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def batch_norm(x: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(x.ndim)
        return x

    monkeypatch.setattr(F, "batch_norm", batch_norm)
    layer = norm(ChannelsLastBatchNorm, 4)
    layer.train() if training else layer.eval()
    shape = [clips, 4, 16, 16, 4]
    assert layer(paddle.zeros(shape, dtype)).shape == shape
    assert seen == [axes]


@pytest.mark.parametrize("precision", [Precision("bf16"), Precision("fp16")], ids=str)
def test_a_graph_normalises_large_bfloat16_tensors_by_rows(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU has no half-precision kernels. A program it does build: 3.x only in the form of 2.6."""
    monkeypatch.setattr(r3d_fast.models.channels_last, "_FEWEST_ROWS", 1)
    model = build_model("r3d10", num_classes=3, width=4, data_format="NDHWC")
    claim_gpu(monkeypatch)
    with precision.autocast(), r3d_fast.acceleration.gpu._apart_from_autocast(), older_graphs():
        graph = r3d_fast.acceleration.gpu._trace_backbone(model)
        concrete, _ = graph.forward.get_concrete_program(drawn((2, 4, 32, 32, 3)).astype(precision.dtype))
    block = concrete.main_program.global_block()
    axes = {len(block.var(op.input("X")[0]).shape) for op in block.ops if op.type == "batch_norm"}
    assert axes == {2 if precision.name == "bf16" else 4}


def test_a_channels_last_model_has_batch_norms_that_count_as_such_and_see_four_axes() -> None:
    model = build_model("r3d10", num_classes=3, width=4, data_format="NDHWC")
    norms = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.BatchNorm3D)]
    assert norms
    assert all(isinstance(layer, ChannelsLastBatchNorm) for layer in norms)
    first = build_model("r3d10", num_classes=3, width=4)
    assert list(first.state_dict()) == list(model.state_dict())
    clips = drawn((2, 4, 32, 32, 3))
    operations = [name for name, _ in types(r3d_fast.acceleration.gpu._trace_backbone(model), clips)]
    assert sum(name.startswith("batch_norm") for name in operations) == len(norms)
    assert operations.count("pool2d") == 2
    assert "pool3d" not in operations


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_max_pool_has_paddles_maxima_and_gradients(shape: tuple[int, ...], ties: bool) -> None:
    x = paddle.round(drawn(shape)) if ties else drawn(shape)
    y, gradient = output_and_gradient(paddle.nn.MaxPool3D(3, 2, 1, data_format="NDHWC"), x)
    our_y, our_gradient = output_and_gradient(ChannelsLastMaxPool(), x)
    np.testing.assert_array_equal(our_y, y)
    # A voxel can be the maximum of eight windows, so its gradient is a sum of up to eight numbers.
    np.testing.assert_allclose(our_gradient, gradient, rtol=5e-7, atol=1e-6)
    np.testing.assert_array_equal(our_gradient == 0.0, gradient == 0.0)


@pytest.mark.parametrize("kernel", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 6, 5, 8), (3, 5, 7, 9, 3)], ids=str)
def test_averages_are_paddles(shape: tuple[int, ...], kernel: tuple[int, int, int]) -> None:
    def plain(x: Any) -> Any:
        return F.avg_pool3d(x, list(kernel), stride=list(kernel), data_format="NDHWC")

    expected = output_and_gradient(plain, drawn(shape))
    got = output_and_gradient(lambda x: average_pool(x, kernel), drawn(shape))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_striding_is_an_average_over_one_voxel(shape: tuple[int, ...]) -> None:
    def plain(x: Any) -> Any:
        return F.avg_pool3d(x, 1, stride=2, data_format="NDHWC")

    expected = output_and_gradient(plain, drawn(shape))
    got = output_and_gradient(lambda x: strided(x, 2), drawn(shape))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["r3d34", "densenet121", "preact18", "r2plus1d18"])
def test_no_operation_of_a_channels_last_graph_pools_five_axes(name: str) -> None:
    model = build_model(name, num_classes=3, width=4, data_format="NDHWC")
    found = [op for op, _ in types(r3d_fast.acceleration.gpu._trace_backbone(model), drawn((1, 8, 32, 32, 3)))]
    assert "pool2d" in found
    assert "pool3d" not in found


@pytest.mark.parametrize("name", ["r3d34", "densenet121"])
def test_a_traced_graph_takes_any_number_of_clips(name: str) -> None:
    model = build_model(name, num_classes=3, width=4, data_format="NDHWC")
    model.eval()
    batches = [drawn((count, 8, 32, 32, 3)) for count in (1, 3)]
    with paddle.no_grad():
        expected = [model(batch).numpy() for batch in batches]
        spec = paddle.static.InputSpec([None, 8, 32, 32, 3], "float32")
        graph = paddle.jit.to_static(model, input_spec=[spec], full_graph=True)
        for batch, logits in zip(batches, expected, strict=True):
            np.testing.assert_allclose(graph(batch).numpy(), logits, atol=1e-5)

"""Several batches a step: the step of one large batch, to rounding; skipped whole; shortened after the loss scale."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu
from states import assert_equal, everything

from pipelines.loader import Batch
from r3d_fast.backend.feed import feed
from r3d_fast.backend.precision import Precision, float32_parameters, float32_weights
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.step import StepResult, TrainStep
from r3d_fast.models.architectures import build_model

FP32 = Precision()


def a_step(accumulate: int = 1, precision: Precision = FP32, evaluating: bool = True, **options: Any) -> TrainStep:
    """A step on a model whose batch norms take no part in how a batch is cut, unless it is training."""
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=4, width=4)
    if evaluating:
        model.eval()
    optimizer = paddle.optimizer.Momentum(
        0.05, 0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-3)
    )
    model, optimizer = precision.decorate(model, optimizer)
    scaler = LossScaler(enabled=precision.name == "fp16")
    return TrainStep(model, optimizer, precision, scaler, "cpu", accumulate=accumulate, **options)


def rows(count: int, seed: int = 0, real: list[int] | None = None) -> Batch:
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(count, 3, 4, 16, 16)).astype(np.float32)
    flags = np.ones(count, bool) if real is None else np.isin(np.arange(count), real)
    return Batch(clips, rng.integers(0, 4, count), np.arange(count), flags, 0, count, ())


def cut(batch: Batch, parts: int) -> list[Batch]:
    size = len(batch.labels) // parts
    spans = [slice(i * size, (i + 1) * size) for i in range(parts)]
    return [Batch(batch.clips[s], batch.labels[s], batch.video_ids[s], batch.is_real[s], 0, 0, ()) for s in spans]


def take(step: TrainStep, batches: list[Batch]) -> StepResult:
    for batch in batches[:-1]:
        assert not step(feed(batch, "cpu"), last=False).applied
    return step(feed(batches[-1], "cpu"))


def assert_close(step: TrainStep, other: TrainStep) -> None:
    ours, theirs = everything(step), everything(other)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("real", [None, [0, 1, 2, 7, 9], [5]])
@pytest.mark.parametrize("parts", [2, 4])
def test_k_batches_are_one_batch_k_times_as_large(parts: int, real: list[int] | None) -> None:
    """Rows that are not real count nowhere: batches with few real ones weigh as little."""
    whole, apart = a_step(), a_step(parts)
    for seed in range(3):
        batch = rows(12, seed, real)
        one, many = take(whole, [batch]), take(apart, cut(batch, parts))
        assert (one.applied, many.applied) == (True, True)
        assert many.loss == pytest.approx(one.loss, rel=1e-5)
        assert_close(apart, whole)
    start = everything(a_step())
    assert not np.allclose(start["weights head.fc.weight"], everything(whole)["weights head.fc.weight"], atol=1e-3)


@pytest.mark.parametrize("sizes", [(4, 4, 3), (3, 3, 3), (1, 4, 2)])
def test_batches_of_a_step_may_differ_in_size(sizes: tuple[int, ...]) -> None:
    """A clip weighs as much in a small batch as in a full one, here of 4."""
    whole, apart = a_step(rows=4), a_step(3, rows=4)
    for seed in range(3):
        batch = rows(sum(sizes), seed)
        ends = np.cumsum((0, *sizes))
        parts = [
            Batch(batch.clips[a:b], batch.labels[a:b], batch.video_ids[a:b], batch.is_real[a:b], 0, 0, ())
            for a, b in itertools.pairwise(ends)
        ]
        one, many = take(whole, [batch]), take(apart, parts)
        assert many.loss == pytest.approx(one.loss, rel=1e-5)
        assert_close(apart, whole)


def test_a_short_last_step_is_the_mean_over_what_there_is() -> None:
    whole, apart = a_step(), a_step(5)
    batch = rows(6)
    one, many = take(whole, [batch]), take(apart, cut(batch, 2))
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    assert_close(apart, whole)


def test_batch_norms_see_each_batch_alone() -> None:
    """So running statistics move k times a step, as k steps without learning would move them."""
    apart, alone = a_step(2, evaluating=False), a_step(evaluating=False)
    halves = cut(rows(8), 2)
    take(apart, halves)
    for half in halves:
        alone.model(paddle.to_tensor(half.clips))
    key = "backbone.stem.0.bn._mean"
    np.testing.assert_array_equal(apart.model.state_dict()[key].numpy(), alone.model.state_dict()[key].numpy())


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_nan_in_any_of_the_batches_moves_nothing(broken: int) -> None:
    step = a_step(3, evaluating=False)
    take(step, cut(rows(6), 3))
    before = everything(step)
    batches = cut(rows(6, 1), 3)
    batches[broken].clips[1, 0, 1, 3, 4] = np.nan
    assert not take(step, batches).applied
    assert_equal(everything(step), before)
    one, other = a_step(3, evaluating=False), step  # nothing of the bad step is left in gradients or sums
    take(one, cut(rows(6), 3))
    results = [take(s, cut(rows(6, 2), 3)) for s in (one, other)]
    assert results[0].loss == results[1].loss
    assert_equal(everything(one), everything(other))


def test_a_loss_that_is_no_number_is_that_of_the_whole_step() -> None:
    step = a_step(2)
    step.model.head.fc.bias.set_value(np.full(4, np.nan, np.float32))
    result = take(step, cut(rows(4), 2))
    assert np.isnan(result.loss)
    assert not result.applied


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_half_precision_accumulates_in_float32_and_scales_as_one_batch(
    level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_gpu(monkeypatch)
    precision = Precision("fp16", level)
    whole, apart = a_step(1, precision, clip_norm=0.5), a_step(4, precision, clip_norm=0.5)
    for step in (whole, apart):
        step.scaler.scale = 2.0**8
    batch = rows(8)
    one, many = take(whole, [batch]), take(apart, cut(batch, 4))
    assert (one.applied, many.applied) == (True, True)
    assert many.grad_norm == pytest.approx(one.grad_norm, rel=2e-2)
    before = everything(a_step(1, precision))
    for name, value in float32_weights(whole.model).items():
        start = before[f"weights {name}"]
        moved, other = value.numpy() - start, float32_weights(apart.model)[name].numpy() - start
        assert np.linalg.norm(moved - other) <= 2e-2 * np.linalg.norm(moved) + 1e-7, name
    apart.scaler.scale = 2.0**127
    kept = everything(apart)
    assert not take(apart, cut(rows(8, 1), 4)).applied
    assert apart.scaler.scale == 2.0**126
    assert_equal(everything(apart), kept)


def test_gradients_of_half_weights_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """2048 + 1 is 2048 in float16."""
    claim_gpu(monkeypatch)
    step = a_step(3, Precision("fp16", "O2"))
    half = step._halves[0]
    for value in (2048.0, 1.0, 1.0):
        half.grad = paddle.full(half.shape, value, "float16")
        step._master_gradients()
    np.testing.assert_array_equal(half.master.grad.numpy(), np.full(half.shape, 2050, np.float32))


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_clipping_comes_after_the_scale_is_taken_out(scale: float) -> None:
    """The step of a gradient shortened to 0.1, whatever the loss was multiplied with."""
    step, free = a_step(clip_norm=0.1), a_step()
    step.scaler.enabled, step.scaler.scale = scale != 1.0, scale
    batch = rows(4)
    captured: dict[str, Any] = {}

    def capture(wanted: TrainStep) -> None:
        before = wanted.optimizer.step

        def note() -> None:
            captured[str(id(wanted))] = [
                p.grad.numpy() for p in float32_parameters(wanted.model).values() if p.grad is not None
            ]
            before()

        wanted.optimizer.step = note

    capture(step)
    capture(free)
    clipped, plain = take(step, [batch]), take(free, [batch])
    gradients, shortened = captured[str(id(free))], captured[str(id(step))]
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients))
    assert plain.grad_norm is None
    assert clipped.grad_norm == pytest.approx(norm, rel=1e-5)
    assert norm > 0.1
    for gradient, short in zip(gradients, shortened, strict=True):
        np.testing.assert_allclose(short, gradient * (0.1 / norm), rtol=1e-3, atol=1e-7)


def test_a_gradient_whose_squares_overflow_is_a_bad_step() -> None:
    step = a_step(clip_norm=1.0)
    fed = feed(rows(4), "cpu")
    before = everything(step)
    result = step(fed._replace(weights=fed.weights * 1e25))
    assert np.isfinite(result.loss)
    assert not result.applied
    assert step.scaler.collapsed
    assert_equal(everything(step), before)

"""One step: what it moves, what it leaves alone, and what it says when memory is exhausted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu, precisions_here
from fed import GPU_TEXT, a_batch, a_fed
from states import assert_equal, everything

from pipelines.errors import EnvironmentProblem
from pipelines.loader import Batch
from r3d_fast.backend import paddle as compat
from r3d_fast.backend.feed import DeviceBatch, feed, feeding
from r3d_fast.backend.precision import Precision, float32_weights
from r3d_fast.evaluation.evaluate import evaluate_model
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.step import TrainStep
from r3d_fast.models.architectures import build_model

FP32 = Precision()


def new_step(precision: Precision = FP32, **options: Any) -> TrainStep:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=4, width=4, **options)
    optimizer = paddle.optimizer.Momentum(
        0.01, 0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-3)
    )
    model, optimizer = precision.decorate(model, optimizer)
    return TrainStep(model, optimizer, precision, LossScaler(enabled=precision.name == "fp16"), "cpu")


def test_a_step_moves_all_there_is() -> None:
    step = new_step()
    before = everything(step)
    result = step(a_fed())
    assert result.applied
    assert (result.logits.dtype, result.logits.shape) == (np.float32, (4, 4))
    after = everything(step)
    assert all(not np.array_equal(after[key], before[key]) for key in before if key != "weights head.fc.bias")
    assert any("velocity" in key for key in after)


def test_no_gradient_takes_memory_between_two_steps() -> None:
    step = new_step()
    step(a_fed())
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_a_step_is_the_plain_one_by_hand() -> None:
    step = new_step()
    by_hand = new_step()
    fed = a_fed()
    for _ in range(2):
        result = step(fed)
        loss = paddle.nn.functional.cross_entropy(by_hand.model(fed.clips), fed.labels)
        loss.backward()
        by_hand.optimizer.step()
        by_hand.optimizer.clear_grad()
        np.testing.assert_allclose(result.loss, float(loss), rtol=1e-6)
    for key, array in everything(by_hand).items():
        np.testing.assert_allclose(everything(step)[key], array, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_clip_is_weighted_by_its_class(smoothing: float) -> None:
    weights = np.array([0.5, 2.0, 1.0, 3.0], np.float32)
    plain = new_step()
    step = TrainStep(
        plain.model, plain.optimizer, FP32, LossScaler(enabled=False), "cpu",
        label_smoothing=smoothing, class_weights=weights,
    )  # fmt: skip
    fed = a_fed()
    result = step(fed)
    logits, labels = result.logits.astype(np.float64), fed.labels.numpy().reshape(-1)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -(1 - smoothing) * log_shares[np.arange(4), labels] - smoothing * log_shares.mean(axis=1)
    np.testing.assert_allclose(result.loss, (losses * weights[labels]).mean(), rtol=1e-5)


def test_a_nan_moves_nothing_not_even_running_statistics() -> None:
    step = new_step()
    step(a_fed())
    before = everything(step)
    batch = a_batch(seed=1)
    batch.clips[2, 0, 1, 3, 4] = np.nan
    result = step(feed(batch, "cpu"))
    # Paddle's ReLU makes 0 of a NaN, so the loss of such a clip can be a number; its gradients are not.
    assert not result.applied
    assert step.scaler.collapsed
    assert_equal(everything(step), before)
    step.model.head.fc.bias.set_value(np.full(4, np.nan, np.float32))
    assert np.isnan(step(a_fed()).loss)
    step.model.head.fc.bias.set_value(before["weights head.fc.bias"])
    assert_equal(everything(step), before)
    assert step(a_fed()).applied


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_gradient_that_overflows_moves_nothing_and_halves_the_scale(
    level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_gpu(monkeypatch)
    step = new_step(Precision("fp16", level))
    step.scaler.scale = 1.0
    assert step(a_fed()).applied
    before = everything(step)
    step.scaler.scale = 2.0**127  # the loss is a number, a hundred times its gradients is beyond float32 when scaled
    fed = a_fed(seed=1)
    result = step(fed._replace(weights=100 * fed.weights))
    assert np.isfinite(result.loss)
    assert not result.applied
    assert (step.scaler.scale, step.scaler.collapsed) == (2.0**126, False)
    assert_equal(everything(step), before)
    step.scaler.scale = 1.0
    assert step(fed).applied  # nothing of the overflow is left in the gradients


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_o2_moves_master_weights_and_rounds_them_into_the_layers(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_gpu(monkeypatch)
    step = new_step(Precision(name, "O2"))
    step.scaler.scale = 1.0
    for number in range(3):
        assert step(a_fed(seed=number)).applied
    stored = step.model.state_dict()
    masters = float32_weights(step.model)
    moved = stored["head.fc.weight"]
    assert moved.dtype != paddle.float32
    for key, tensor in masters.items():
        assert tensor.dtype == paddle.float32
        rounded = tensor.astype(stored[key].dtype).astype("float32").numpy()
        np.testing.assert_array_equal(stored[key].astype("float32").numpy(), rounded, err_msg=key)


def test_updates_too_small_for_float16_add_up_in_the_master_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 + 2^-12 is 1 in float16: a layer without master weights would never move."""
    claim_gpu(monkeypatch)
    layer = paddle.nn.Linear(1, 1)
    layer.weight.set_value(paddle.ones([1, 1]))
    optimizer = paddle.optimizer.SGD(2.0**-12, parameters=layer.parameters())
    precision = Precision("fp16", "O2")
    layer, optimizer = precision.decorate(layer, optimizer)
    step = TrainStep(layer, optimizer, precision, LossScaler(), "cpu")

    def backward(fed: DeviceBatch) -> tuple[Any, Any]:
        loss = -precision.forward(layer, fed.clips).sum()
        step.scaler.scale_loss(loss).backward()
        return loss.detach(), paddle.zeros([1, 1])

    monkeypatch.setattr(step, "_backward", backward)
    for _ in range(16):
        assert step(DeviceBatch(paddle.ones([1, 1]), None, None)).applied
    assert float32_weights(layer)["weight"].item() == 1.0 + 2.0**-8
    assert layer.weight.astype("float32").item() == 1.0 + 2.0**-8


def test_small_gradients_survive_the_division_by_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^-26 is 0 in float16, where a scaled gradient would be divided without master gradients."""
    claim_gpu(monkeypatch)
    step = new_step(Precision("fp16", "O2"))
    half = step._halves[0]

    def backward(fed: DeviceBatch) -> tuple[Any, Any]:
        half.grad = paddle.full(half.shape, 2.0**-11, "float16")
        return paddle.zeros([]), paddle.zeros([1, 1])

    monkeypatch.setattr(step, "_backward", backward)
    before = half.master.numpy().copy()
    step.optimizer.set_lr(2.0**20)
    step.optimizer._regularization_coeff = 0.0
    assert step(DeviceBatch(paddle.ones([1, 1]), None, None)).applied
    np.testing.assert_allclose(before - half.master.numpy(), 2.0**-6, rtol=1e-3)


class _Greedy(paddle.nn.Layer):  # type: ignore[misc]
    """A model that wants more memory than there is, from 4 clips on; the error is Paddle's own, or has a GPU's text."""

    def __init__(self, text: str = "", most: int = 3) -> None:
        super().__init__()
        self.fc = paddle.nn.Linear(3, 4)
        self.text, self.most = text, most
        self.sizes: list[int] = []

    def forward(self, clips: Any) -> Any:
        self.sizes.append(clips.shape[0])
        if clips.shape[0] > self.most:
            if self.text:
                raise MemoryError(self.text)
            paddle.empty([2**44])
        return self.fc(clips.mean(axis=[2, 3, 4]))


def greedy_step(model: _Greedy, device: str = "cpu") -> TrainStep:
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    return TrainStep(model, optimizer, Precision(), LossScaler(enabled=False), device)


def test_memory_that_runs_out_names_the_batch_that_fits() -> None:
    model = _Greedy()
    step = greedy_step(model)
    assert step(a_fed(3)).applied
    before = model.fc.weight.numpy()
    model.sizes.clear()
    with pytest.raises(EnvironmentProblem) as caught:
        step(a_fed(16))
    assert model.sizes == [16, 8, 4, 2]
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        "out of memory on the CPU: a batch of 16 clips does not fit; a batch of 2 fits: -o loader.batch_size=2 "
        "-o train.accumulate=8 (the same steps, except for batch norm)"
    )
    np.testing.assert_array_equal(model.fc.weight.numpy(), before)


def test_the_message_says_how_much_a_gpu_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(paddle.device.cuda, "empty_cache", lambda: freed.append(True))
    with pytest.raises(EnvironmentProblem) as caught:
        greedy_step(_Greedy(GPU_TEXT), "gpu")(a_fed(8))
    assert str(caught.value) == (
        "out of memory on the GPU: a batch of 8 clips does not fit (392.000000MB more were needed); "
        "a batch of 2 fits: -o loader.batch_size=2 -o train.accumulate=4 (the same steps, except for batch norm)"
    )
    assert len(freed) >= 2


def test_a_model_that_never_fits_says_so() -> None:
    with pytest.raises(EnvironmentProblem, match=r"not even one clip fits: choose a smaller model\.width"):
        greedy_step(_Greedy(most=0))(a_fed(4))


def test_other_errors_stay_what_they_are() -> None:
    class Broken(_Greedy):
        def forward(self, clips: Any) -> Any:
            raise RuntimeError("(PreconditionNotMet) something else")

    with pytest.raises(RuntimeError, match="something else"):
        greedy_step(Broken())(a_fed(4))


def test_memory_that_runs_out_in_evaluation_names_its_own_batch_size() -> None:
    class Loader:
        class sampler:
            videos = range(8)
            num_clips = 8

        def __len__(self) -> int:
            return 1

        def epoch(self, number: int) -> Iterator[Batch]:
            yield a_batch(8)

    with pytest.raises(EnvironmentProblem) as caught:
        evaluate_model(_Greedy(), Loader(), 4, "cpu")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "out of memory on the CPU: a batch of 8 clips does not fit; a batch of 2 fits: -o eval.batch_size=2; "
        "evaluation has a batch size of its own"
    )


# ---- on a GPU ----


def gpu_step(precision: Precision, width: int = 16) -> TrainStep:
    paddle.seed(0)
    last = "NDHWC" if precision.name != "fp32" else "NCDHW"
    model = build_model("r3d18_reference", num_classes=4, width=width, data_format=last)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=model.parameters())
    model, optimizer = precision.decorate(model, optimizer)
    return TrainStep(model, optimizer, precision, LossScaler(enabled=precision.name == "fp16"), "gpu")


def gpu_fed(step: TrainStep, seed: int, rows: int = 8) -> DeviceBatch:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 4
    clips = rng.normal(size=(rows, 3, 8, 32, 32)) + labels[:, None, None, None, None] * 0.5
    if step.precision.name != "fp32":
        clips = clips.transpose(0, 2, 3, 4, 1)
    array = np.ascontiguousarray(clips.astype(step.precision.clip_dtype))
    return feed(Batch(array, labels, np.arange(rows), np.ones(rows, bool), 0, rows, ()), "gpu")


@pytest.mark.gpu
def test_a_half_precision_step_is_the_float32_step_within_its_rounding(on_gpu: str) -> None:
    single = gpu_step(Precision())
    start = {key: value.numpy() for key, value in float32_weights(single.model).items()}
    expected = single(gpu_fed(single, 0))
    moved = {key: value.numpy() - start[key] for key, value in float32_weights(single.model).items()}
    for precision in precisions_here():
        step = gpu_step(precision)
        while not (result := step(gpu_fed(step, 0))).applied:  # until the scale has backed off far enough
            pass
        rounding = 0.02 if precision.name == "fp16" else 0.1
        assert result.loss == pytest.approx(expected.loss, rel=rounding)
        for key in ("head.fc.weight", "backbone.layer4.1.block.1.weight", "backbone.layer1.0.block.1.weight"):
            change = float32_weights(step.model)[key].numpy() - start[key]
            far = np.linalg.norm(change - moved[key]) / np.linalg.norm(moved[key])
            assert far < 5 * rounding, (precision, key, far)


@pytest.mark.gpu
def test_fifty_steps_lose_as_much_as_in_float32(on_gpu: str) -> None:
    def losses(precision: Precision) -> list[float]:
        step = gpu_step(precision)
        return [step(gpu_fed(step, number)).loss for number in range(50)]

    expected = np.mean(losses(Precision())[-10:])
    for precision in precisions_here():
        given = losses(precision)
        assert np.isfinite(given).all(), precision
        assert np.mean(given[-10:]) < 0.5 * given[0], precision
        assert np.mean(given[-10:]) == pytest.approx(expected, abs=0.15), precision


@pytest.mark.gpu
def test_clips_of_the_cpu_reach_the_gpu_and_labels_too(on_gpu: str) -> None:
    batch = a_batch(4)
    fed = feed(batch, "gpu")
    for tensor in fed[:3]:
        assert tensor.place.is_gpu_place()
    np.testing.assert_array_equal(fed.clips.numpy(), batch.clips)
    np.testing.assert_array_equal(fed.labels.numpy(), batch.labels)
    assert compat.stream_handle() >= 1


@pytest.mark.gpu
def test_many_batches_pass_the_gpu_whole(on_gpu: str) -> None:
    sums = [fed.clips.sum() for _, fed in feeding((a_batch(4, seed) for seed in range(40)), "gpu")]
    for seed, total in enumerate(sums):
        np.testing.assert_allclose(float(total), a_batch(4, seed).clips.sum(), rtol=1e-3, atol=0.5)


@pytest.mark.gpu
@pytest.mark.slow
def test_a_batch_that_is_too_large_for_the_gpu_names_one_that_fits(on_gpu: str) -> None:
    step = gpu_step(FP32, width=64)

    def grow() -> None:
        for rows in (64, 256, 1024, 4096):  # the activations of a clip take some 100 MB
            clips = paddle.zeros([rows, 3, 16, 112, 112])
            step(DeviceBatch(clips, paddle.zeros([rows], "int64"), paddle.ones([rows]) / rows))

    with pytest.raises(EnvironmentProblem, match=r"out of memory on the GPU: .* -o loader\.batch_size=\d+"):
        grow()

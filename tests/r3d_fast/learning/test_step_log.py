"""Steps as on a GPU: what moves is decided where it lies, the host asks nothing, and the outcome is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import pytest
import tiny
from claimed import claim_gpu
from fed import a_batch
from runs import assert_same, records
from states import assert_equal, everything

from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from r3d_fast.backend.feed import feed
from r3d_fast.backend.precision import Precision
from r3d_fast.learning.ema import Ema
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.step import StepResult, TrainStep
from r3d_fast.models.architectures import build_model
from r3d_fast.training.step_log import StepLog
from r3d_fast.training.train import train

READS = ("numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__array__", "__index__")


def a_step(precision: Precision, deferred: bool, **options: Any) -> TrainStep:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=4, width=4)
    decay = paddle.regularizer.L2Decay(1e-3)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=model.parameters(), weight_decay=decay)
    model, optimizer = precision.decorate(model, optimizer)
    scaler = LossScaler(enabled=precision.name == "fp16")
    return TrainStep(model, optimizer, precision, scaler, "cpu", deferred=deferred, **options)


@contextmanager
def nobody_reads() -> Iterator[None]:
    """A block in which reading a tensor is an error: on a GPU it would wait for all that was started."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("read")

    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            patch.setattr(paddle.Tensor, name, refuse)
        yield


def broken(batch: Batch) -> Batch:
    batch.clips[1, 0, 1, 3, 4] = np.nan
    return batch


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5, "accumulate": 2, "label_smoothing": 0.1}])
@pytest.mark.parametrize("precision", [Precision(), Precision("fp16", "O1"), Precision("fp16", "O2")], ids=str)
def test_the_outcome_is_that_of_asking_and_nothing_is_read(
    precision: Precision, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision.name != "fp32":
        claim_gpu(monkeypatch)
    asked, deferred = (a_step(precision, flag, **options) for flag in (False, True))
    averages = [Ema(step.model, 0.9) for step in (asked, deferred)]
    for step in (asked, deferred):
        step.scaler.scale = 2.0**4 if precision.name == "fp16" else 1.0  # so small that nothing good overflows
    parts = options.get("accumulate", 1)
    results: list[list[StepResult]] = [[], []]
    for number in range(6):
        batches = [a_batch(seed=10 * number + part) for part in range(parts)]
        if number in (2, 3):
            broken(batches[-1])
        fed = [feed(batch, "cpu") for batch in batches]
        for step, ema, into in zip((asked, deferred), averages, results, strict=True):
            first_or_asked = step is asked or number == 0  # Paddle makes moments in the first step
            for part, one in enumerate(fed):
                with pytest.MonkeyPatch.context() if first_or_asked else nobody_reads():
                    result = step(one, last=part == parts - 1)
            with nobody_reads():
                ema.update(result.applied_tensor)
            into.append(result)
    assert [r.applied for r in results[1]] == [True, True, False, False, True, True]
    for one, two in zip(*results, strict=True):
        assert (one.applied, one.is_hopeless, one.loss_scale) == (two.applied, two.is_hopeless, two.loss_scale)
        np.testing.assert_array_equal([one.loss, one.grad_norm or 0.0], [two.loss, two.grad_norm or 0.0])
        np.testing.assert_array_equal(one.logits, two.logits)
    assert_equal(everything(deferred), everything(asked))
    assert averages[0].updates == averages[1].updates == 4
    assert_equal(averages[1].arrays(), averages[0].arrays())


def test_adamw_is_asked_as_part_of_its_state_is_on_the_host() -> None:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=4, width=4)
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    step = TrainStep(model, optimizer, Precision(), LossScaler(enabled=False), "cpu", deferred=True)
    step(feed(a_batch(), "cpu"))
    before = everything(step)
    assert not step(feed(broken(a_batch(seed=1)), "cpu")).applied
    assert_equal(everything(step), before)


def test_a_run_that_reads_once_in_a_while_is_the_run_that_reads_each_step(
    index: VideoIndex, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.tiny_config(index, "train.log_every_steps=3", "train.checkpoint_every_steps=2")
    train(config, run=tmp_path / "each")
    reads = []
    read = StepLog.read

    def note(log: StepLog, state: Any, out: Any) -> None:
        reads.append(len(log._pending))
        read(log, state, out)

    monkeypatch.setattr(StepLog, "read", note)
    monkeypatch.setattr(StepLog, "is_due", lambda log, state: state.step % 3 == 0)
    train(config, run=tmp_path / "some")
    assert max(reads) > 1
    assert_same(tmp_path / "some", tmp_path / "each")
    for record in records(tmp_path / "each", "train"):  # the speed of this step alone
        assert record["clips_per_second"] == pytest.approx(record["count"] / record["seconds"])
        assert 0 <= record["wait_share"] <= 1
    together = records(tmp_path / "some", "train")
    speeds = {record["clips_per_second"]: record["seconds"] for record in together}
    assert (
        len(speeds) == sum(count > 0 for count in reads) < len(together)
    )  # one speed for the steps that are read together
    assert all(speed == pytest.approx(6 / seconds) for speed, seconds in speeds.items())

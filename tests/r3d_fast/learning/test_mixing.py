"""Mixup and cutmix: what is drawn, from what, and what becomes of clips, labels and the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest

from pipelines.draws import random_words
from pipelines.loader import Batch
from r3d_fast.backend.feed import feed
from r3d_fast.backend.precision import Precision
from r3d_fast.config.sections import TrainSpec
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.learning.mixing import Mix, beta, draw_mix
from r3d_fast.learning.step import TrainStep
from r3d_fast.models.architectures import build_model

SIDE = 12


def mixing(mixup: float = 0.0, cutmix: float = 0.0, seed: int = 0) -> dict[str, Any]:
    spec = TrainSpec(mixup_alpha=mixup, cutmix_alpha=cutmix, seed=seed)
    return {"spec": spec, "size_px": SIDE}


def a_batch(rows: int = 6, position: int = 6, epoch: int = 0, real: tuple[int, ...] | None = None) -> Batch:
    clips = np.random.default_rng(position).normal(size=(rows, 3, 4, SIDE, SIDE)).astype(np.float32)
    flags = np.ones(rows, bool) if real is None else np.isin(np.arange(rows), real)
    return Batch(clips, np.arange(rows), np.arange(rows), flags, epoch, position, ())


def draws(alpha: float, count: int = 4000) -> Any:
    return np.array([beta(alpha, random_words(64, 7, number)) for number in range(count)])


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    """Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)), fourth central moment 3 / (16 (2a + 1) (2a + 3))."""
    drawn = draws(alpha)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    variance, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    error = 4 / math.sqrt(len(drawn))  # four standard errors
    assert drawn.mean() == pytest.approx(0.5, abs=error * math.sqrt(variance))
    assert drawn.var() == pytest.approx(variance, abs=error * math.sqrt(fourth - variance**2))
    assert ((drawn - 0.5) ** 4).mean() == pytest.approx(fourth, abs=error * math.sqrt(fourth / 16))


@pytest.mark.parametrize(
    ("alpha", "quantile"),
    [
        (1.0, lambda p: p),  # uniform
        (0.5, lambda p: math.sin(math.pi * p / 2) ** 2),  # arcsine
    ],
)
def test_shares_have_the_quantiles_of_a_beta_distribution(alpha: float, quantile: Any) -> None:
    drawn = np.sort(draws(alpha))
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        below = np.searchsorted(drawn, quantile(p)) / len(drawn)
        assert below == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / len(drawn)))


def test_shares_of_an_extreme_alpha_are_numbers() -> None:
    assert {round(share) for share in draws(1e-4, 50)} == {0, 1}
    assert draws(1e6, 50) == pytest.approx(np.full(50, 0.5), abs=0.01)


def test_a_draw_is_the_same_for_ever() -> None:
    """The numbers themselves: another way of drawing would change every run that goes on."""
    assert beta(0.2, random_words(64, 1, 2, 3)) == pytest.approx(0.15093446, abs=1e-6)
    mix = draw_mix(a_batch(), **mixing(0.2))
    assert (mix.partner.tolist(), mix.box) == ([4, 0, 5, 1, 2, 3], None)
    assert draw_mix(a_batch(), **mixing(cutmix=1.0)).box == (6, 2, 4, 4)


def test_the_place_in_the_run_and_the_seed_decide_and_nothing_else() -> None:
    def drawn(position: int = 6, epoch: int = 0, seed: int = 0) -> tuple[Any, ...]:
        mix = draw_mix(a_batch(position=position, epoch=epoch), **mixing(0.4, seed=seed))
        return mix.share, *mix.partner.tolist()

    assert drawn() == drawn()
    assert drawn(position=12) != drawn()
    assert drawn(epoch=1) != drawn()
    assert drawn(seed=1) != drawn()


def test_off_is_the_batch_itself() -> None:
    batch = a_batch()
    fed = feed(batch, "cpu")
    mix = draw_mix(batch, **mixing())
    assert mix.apply(fed) is fed
    assert mix.labels(batch.labels) is batch.labels


def test_real_rows_are_mixed_with_other_real_rows_and_blank_ones_with_nothing() -> None:
    for position in range(6, 306, 6):
        batch = a_batch(position=position, real=(0, 2, 3, 5))
        mix = draw_mix(batch, **mixing(1.0, 1.0))
        assert mix.partner[[1, 4]].tolist() == [1, 4]
        assert sorted(mix.partner[[0, 2, 3, 5]]) == [0, 2, 3, 5]
        assert (mix.partner[[0, 2, 3, 5]] != [0, 2, 3, 5]).all()
        if mix.share == 1.0:
            continue  # a box of no pixels
        mixed = mix.apply(feed(batch, "cpu")).clips.numpy()
        np.testing.assert_allclose(mixed[[1, 4]], batch.clips[[1, 4]], rtol=1e-6)
    assert draw_mix(a_batch(real=(3,)), **mixing(1.0)).share == 1.0


def test_with_both_alphas_about_half_of_the_batches_get_a_box() -> None:
    boxes = [draw_mix(a_batch(position=p), **mixing(1.0, 1.0)).box is not None for p in range(6, 1206, 6)]
    assert 70 < sum(boxes) < 130
    assert all(draw_mix(a_batch(position=p), **mixing(0.0, 1.0)).box is not None for p in range(6, 66, 6))


def test_mixup_blends_pairs_and_leaves_the_loaders_memory_alone() -> None:
    batch = a_batch()
    before = batch.clips.copy()
    mix = Mix(np.array([1, 2, 0, 4, 5, 3]), 0.25)
    fed = mix.apply(feed(batch, "cpu"))
    np.testing.assert_allclose(fed.clips.numpy(), 0.25 * before + 0.75 * before[mix.partner], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(fed.others.numpy(), mix.partner)
    np.testing.assert_array_equal(batch.clips, before)
    assert mix.labels(batch.labels).tolist() == [1, 2, 0, 4, 5, 3]
    assert Mix(mix.partner, 0.75).labels(batch.labels).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("channels_last", [False, True])
def test_cutmix_takes_a_box_of_the_partner_in_every_frame(channels_last: bool) -> None:
    batch = a_batch()
    before = batch.clips.copy()
    mix = Mix(np.array([1, 2, 0, 4, 5, 3]), 1 - 5 * 4 / SIDE**2, (2, 7, 5, 4))
    expected = before.copy()
    expected[:, :, :, 2:7, 7:11] = before[mix.partner][:, :, :, 2:7, 7:11]
    fed = feed(batch, "cpu")
    if channels_last:
        fed = fed._replace(clips=fed.clips.transpose([0, 2, 3, 4, 1]))
    mixed = mix.apply(fed, channels_last).clips.numpy()
    np.testing.assert_array_equal(mixed.transpose(0, 4, 1, 2, 3) if channels_last else mixed, expected)
    np.testing.assert_array_equal(batch.clips, before)


def test_a_box_lies_in_the_frame_and_the_share_is_the_area_that_it_leaves() -> None:
    shares = []
    for position in range(6, 1206, 6):
        mix = draw_mix(a_batch(position=position), **mixing(cutmix=1.0))
        assert mix.box is not None
        y, x, height, width = mix.box
        assert 0 <= y <= y + height <= SIDE
        assert 0 <= x <= x + width <= SIDE
        assert mix.share == 1 - height * width / SIDE**2
        shares.append(mix.share)
    assert min(shares) < 0.3
    assert max(shares) > 0.97


def a_step(smoothing: float = 0.0) -> TrainStep:
    paddle.seed(0)
    model = build_model("r3d10", num_classes=6, width=2)
    model.eval()
    optimizer = paddle.optimizer.SGD(0.0, parameters=model.parameters())
    return TrainStep(model, optimizer, Precision(), LossScaler(enabled=False), "cpu", label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_mixed_and_smoothed_labels(smoothing: float) -> None:
    step, batch = a_step(smoothing), a_batch()
    mix = Mix(np.array([1, 2, 0, 4, 5, 3]), 0.3)
    result = step(mix.apply(feed(batch, "cpu")))
    targets = 0.3 * np.eye(6)[batch.labels] + 0.7 * np.eye(6)[mix.partner]
    targets = (1 - smoothing) * targets + smoothing / 6
    scores = result.logits.astype(np.float64)
    log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert result.loss == pytest.approx(-(targets * log_probs).sum(axis=1).mean(), rel=1e-5)

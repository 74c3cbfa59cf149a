"""Mixup and cutmix: which clips of a batch are mixed, and by how much.

Both depend only on the seed and on the batch's place in the run. They are drawn from raw Philox words, so that a
resumed run, every device and every version of NumPy draw the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.draws import below, random_words
from pipelines.loader import Batch
from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.backend.paddle import import_paddle, to_gpu
from r3d_fast.config.sections import TrainSpec

_STREAM = 101  # number of this stream of Philox words; those of the sampler are lower
_WORDS = 256  # a Beta draw takes three to seven, its rejections included


@dataclass(frozen=True)
class Mix:
    """How the clips of a batch are mixed: row i with row `partner[i]`, int64 [N]. A row that is not real stays alone.

    mixup (`box` None): a clip becomes share * clip + (1 - share) * partner (Zhang et al. 2018, arXiv:1710.09412).
    cutmix: in every frame, the pixels in the `box` (y, x, height, width) in px come from the partner (Yun et al. 2019,
    arXiv:1905.04899). `share` is then the part of the frame's area outside the box.
    """

    partner: NDArray[np.int64]
    share: float = 1.0
    box: tuple[int, int, int, int] | None = None

    def apply(self, batch: DeviceBatch, channels_last: bool = False) -> DeviceBatch:
        """`batch` with mixed clips. They are new tensors: those of `batch` may lie in the loader's memory."""
        if self.share == 1.0:
            return batch
        paddle = import_paddle()
        held = batch.held
        if batch.clips.place.is_gpu_place():
            partner, pinned = to_gpu(self.partner)
            held = (*held, pinned)
        else:
            partner = paddle.to_tensor(self.partner)
        with paddle.no_grad():
            others = paddle.index_select(batch.labels, partner)
            if self.box is None:
                clips = batch.clips * self.share + paddle.index_select(batch.clips, partner) * (1.0 - self.share)
            else:
                y, x, height, width = self.box
                inner = (slice(y, y + height), slice(x, x + width))
                place = (slice(None), slice(None), *inner) if channels_last else (slice(None),) * 3 + inner
                clips = batch.clips.clone()
                clips[place] = paddle.index_select(batch.clips[place], partner)
        return batch._replace(clips=clips, held=held, others=others, share=self.share)

    def labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The label of which each clip holds the greater share, int64 [N]; top1 is counted against it."""
        return labels if self.share >= 0.5 else labels[self.partner]


def draw_mix(batch: Batch, spec: TrainSpec, size_px: int) -> Mix:
    """How `batch`, of frames of `size_px` pixels, is mixed.

    It is not mixed where `mixup_alpha` and `cutmix_alpha` of `spec` are both 0, or it has fewer than two real rows.
    One share is drawn for the batch, from Beta(alpha, alpha); where both alphas are set, mixup and cutmix each have
    probability 1/2. Partners are neighbours in a random ring of the real rows, so none is its own.
    """
    alphas, rows = (spec.mixup_alpha, spec.cutmix_alpha), np.arange(len(batch.labels))
    real = np.flatnonzero(batch.is_real)
    if not any(alphas) or len(real) < 2:
        return Mix(rows)
    words = random_words(3 + len(rows) + _WORDS, spec.seed, batch.epoch, batch.position, _STREAM)
    cut = alphas[1] > 0.0 and (alphas[0] == 0.0 or bool(below(words[:1], 2)[0]))
    ring = real[np.argsort(words[3 : 3 + len(real)], kind="stable")]
    partner = rows.copy()
    partner[ring] = np.roll(ring, 1)
    share = beta(alphas[cut], words[3 + len(rows) :])
    if not cut:
        return Mix(partner, share)
    return _cut(partner, share, size_px, words[1:3])


def _cut(partner: NDArray[np.int64], share: float, side: int, words: NDArray[np.uint64]) -> Mix:
    """The cutmix of frames of `side` px whose box covers 1 - share of them; what lies outside the frame is cut off."""
    size = int(side * math.sqrt(1.0 - share))
    centre_y, centre_x = (int(word) for word in below(words, side))
    top, left = max(0, centre_y - size // 2), max(0, centre_x - size // 2)
    height = min(side, centre_y - size // 2 + size) - top
    width = min(side, centre_x - size // 2 + size) - left
    return Mix(partner, 1.0 - height * width / side**2, (top, left, height, width))


def beta(alpha: float, words: NDArray[np.uint64]) -> float:
    """A number drawn from Beta(alpha, alpha), alpha > 0, by uniform 64-bit `words`.

    It is X / (X + Y) of two numbers drawn from Gamma(alpha). These are kept as logarithms: for a small alpha they are
    too small for a float. The result is rounded to float32, so that the last bits of a machine's mathematical library
    don't matter.
    """
    uniforms = iter(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    apart = _log_gamma_draw(alpha, uniforms) - _log_gamma_draw(alpha, uniforms)
    return float(np.float32(1.0 / (1.0 + math.exp(min(-apart, 700.0)))))


def _log_gamma_draw(shape: float, uniforms: Iterator[float]) -> float:
    """The logarithm of a number drawn from Gamma(shape).

    Marsaglia and Tsang 2000, "A Simple Method for Generating Gamma Variables", for shapes below 1 by its section 6.
    Normal numbers are made by Box and Muller's method. More than 95 % of the attempts succeed.
    """
    boost = 0.0
    if shape < 1.0:
        boost, shape = math.log(next(uniforms)) / shape, shape + 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        radius, angle = math.sqrt(-2.0 * math.log(next(uniforms))), 2.0 * math.pi * next(uniforms)
        normal = radius * math.cos(angle)
        cube, accept = (1.0 + c * normal) ** 3, math.log(next(uniforms))
        if cube > 0.0 and accept < 0.5 * normal**2 + d - d * cube + d * math.log(cube):
            return math.log(d * cube) + boost

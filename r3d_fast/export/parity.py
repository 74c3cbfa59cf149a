"""Compares the outputs of an exported model with those of the trained model, on several batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.errors import CheckpointError, ParityError
from r3d_fast.export.manifest import Difference, Parity
from r3d_fast.weights.stored_model import RestoredModel

BATCH_SIZES = (1, 2, 5)
Run = Callable[[Any], tuple[NDArray[np.float32], NDArray[np.float32]]]

# As shares of the largest value. For float32 on the CPU the largest difference measured is 3e-6, over models of every
# family at width 8. The others are not measured but follow from the bits of a number: on a GPU convolutions may round
# to the 10 bits of TF32; fp16 has 10 bits too, bf16 has 7.
_TOLERANCES = {("fp32", "cpu"): 1e-4, ("fp32", "gpu"): 1e-2, ("fp16", "gpu"): 2e-2, ("bf16", "gpu"): 1e-1}


@dataclass(frozen=True)
class Check:
    """Clips float32 [N, 3, T, S, S], with the trained model's logits float32 [N, C] and features float32 [N, F]."""

    clips: NDArray[np.float32]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def tolerance(precision: str, device: str) -> float:
    """The largest difference that an export may have, as a share of the largest value."""
    return _TOLERANCES[precision, device]


def reference(restored: RestoredModel) -> list[Check]:
    """A Check for each of BATCH_SIZES: clips of uniformly random, normalised pixels with the model's outputs.

    Raises CheckpointError where an output is not finite.
    """
    paddle = import_paddle()
    model, config = restored.model, restored.config
    augment, rng = config.augment, np.random.default_rng(0)
    side = augment.size_px
    mean, std = (np.reshape(values, (1, 3, 1, 1, 1)) for values in (augment.mean, augment.std))
    checks = []
    for size in BATCH_SIZES:
        pixels = rng.uniform(0.0, augment.value_max, (size, 3, config.clip.num_frames, side, side))
        clips = ((pixels - mean) / std).astype(np.float32)
        with paddle.no_grad():
            logits, features = (output.numpy() for output in model.logits_and_features(paddle.to_tensor(clips)))
        if not (np.isfinite(logits).all() and np.isfinite(features).all()):
            raise CheckpointError(
                f"{restored.weights}: the model gives NaN or infinite values for ordinary pixels; use an earlier "
                "checkpoint"
            )
        checks.append(Check(clips, logits, features))
    return checks


def check(run: Run, checks: list[Check], file: str, engine: str, device: str, tolerance: float) -> Parity:
    """The differences of `run` from the trained model. Raises ParityError where one is larger than `tolerance`."""
    got = [run(one.clips) for one in checks]
    logits = _difference([one.logits for one in checks], [outputs[0] for outputs in got])
    features = _difference([one.features for one in checks], [outputs[1] for outputs in got])
    for name, (off, largest) in {"logits": logits, "features": features}.items():
        if not off <= tolerance * largest:  # `not <=` so that NaN is refused too
            raise ParityError(
                f"{file} in {engine} ({device}) differs from the trained model: the largest difference of the {name} "
                f"is {off:.3g}, of values up to {largest:.3g}; expected at most {tolerance * largest:.3g}. "
                "Nothing was written"
            )
    return Parity(
        file=file,
        engine=engine,
        device=device,
        batch_sizes=tuple(len(one.clips) for one in checks),
        tolerance=tolerance,
        logits=Difference(max_abs=logits[0], largest=logits[1]),
        features=Difference(max_abs=features[0], largest=features[1]),
    )


def _difference(expected: list[NDArray[np.float32]], got: list[NDArray[np.float32]]) -> tuple[float, float]:
    """(largest absolute difference, largest absolute expected value) over batches."""
    off = [float(np.abs(mine - theirs).max()) for mine, theirs in zip(got, expected, strict=True)]
    return float(np.max(off)), max(float(np.abs(values).max()) for values in expected)

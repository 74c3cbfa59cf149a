"""r3d-fast: train 3D ResNets on action recognition straight from video files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r3d_fast.version import __version__ as __version__

if TYPE_CHECKING:
    from r3d_fast.config.config import load_config
    from r3d_fast.evaluation.evaluate import evaluate
    from r3d_fast.models.architectures import build_model
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.training.train import train

__all__ = ["Predictor", "build_model", "evaluate", "load_config", "train"]

# Imported on first use, so that `r3d-fast --help` does not wait for Paddle.
_HOMES = {
    "Predictor": "prediction.predictor",
    "build_model": "models.architectures",
    "evaluate": "evaluation.evaluate",
    "load_config": "config.config",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'r3d_fast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"r3d_fast.{_HOMES[name]}"), name)

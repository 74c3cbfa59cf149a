"""r3d-fast: train 3D ResNets on action recognition straight from video files."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r3d_fast.config import load_config
    from r3d_fast.evaluate import evaluate
    from r3d_fast.models import build_model
    from r3d_fast.predict import Predictor
    from r3d_fast.train import train

__version__ = "0.1.0"
__all__ = ["Predictor", "build_model", "evaluate", "load_config", "train"]

_HOMES = {
    "Predictor": "predict",
    "build_model": "models",
    "evaluate": "evaluate",
    "load_config": "config",
    "train": "train",
}


class _Package(ModuleType):
    """`r3d_fast` itself: `r3d_fast.train` is the function, also after the module of that name was imported.

    Names are looked up on first use, so that the command line need not wait for Paddle.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'r3d_fast' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"r3d_fast.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _Package

"""Paddle's modules for whoever defines layers: `paddle`, `nn` and `F`, imported after what has to be said to it first.

Functions that only call Paddle take it from `import_paddle()`, so that importing their module costs nothing.
"""

from __future__ import annotations

from r3d_fast.backend.paddle import import_paddle

import_paddle()

import paddle  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional as F  # noqa: E402

__all__ = ["F", "nn", "paddle"]

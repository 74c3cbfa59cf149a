"""Paddle's modules `paddle`, `nn` and `F`, for modules that define layers and so need Paddle when they are imported.

They are set up by `import_paddle()`. Other modules call that function where they need Paddle, so that importing them
is fast.
"""

from __future__ import annotations

from r3d_fast.backend.paddle import import_paddle

import_paddle()

import paddle  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional as F  # noqa: E402

__all__ = ["F", "nn", "paddle"]

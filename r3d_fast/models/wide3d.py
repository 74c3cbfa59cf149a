"""Wide 3D ResNets: bottlenecks with twice the channels in the middle, and as many outside.

Hara et al. 2018, arXiv:1711.09577, Table 1 (k = 2); Zagoruyko and Komodakis 2016, arXiv:1605.07146.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r3d_fast.models.resnet3d import Bottleneck, ResNet


@dataclass(frozen=True)
class WideResNet(ResNet):
    """A ResNet of wide bottlenecks."""

    bottleneck: bool = True

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return WideBottleneck(self, inputs, stage, stride)


class WideBottleneck(Bottleneck):
    """A bottleneck of twice the width."""

    widen = 2

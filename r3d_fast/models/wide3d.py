"""Wide 3D ResNets: bottleneck blocks whose 3x3x3 convolution has twice the channels, but not their output.

The stem of the authors' later code (master branch) has twice the channels too: stem_factor 2.
Sources: Hara et al. 2018, arXiv:1711.09577, Table 1 (k = 2); Zagoruyko and Komodakis 2016, arXiv:1605.07146.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from r3d_fast.models.resnet3d import Bottleneck, ResNet


@dataclass(frozen=True)
class WideResNet(ResNet):
    """A ResNet of wide bottleneck blocks."""

    bottleneck: bool = True

    stem_factors: ClassVar[tuple[int, ...]] = (1, 2)

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return WideBottleneck(self, inputs, stage, stride)


class WideBottleneck(Bottleneck):
    """A bottleneck block with twice the channels in the middle."""

    widen = 2

"""3D ResNeXts: bottleneck blocks whose 3x3x3 convolution has twice the channels, in 32 groups.

The stem of the authors' later code (master branch) has twice the channels too: stem_factor 2.
Sources: Hara et al. 2018, arXiv:1711.09577, Table 1 (cardinality 32); Xie et al. 2017, arXiv:1611.05431, Figure 3c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from r3d_fast.models.resnet3d import Bottleneck, ResNet


@dataclass(frozen=True)
class ResNeXt(ResNet):
    """A ResNet of bottleneck blocks with grouped convolutions."""

    bottleneck: bool = True

    width_step: ClassVar[int] = 16  # 2 * 16 channels, so that each of the 32 groups of the first stage has one
    stem_factors: ClassVar[tuple[int, ...]] = (1, 2)

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return GroupedBottleneck(self, inputs, stage, stride)


class GroupedBottleneck(Bottleneck):
    """A bottleneck block with twice the channels in the middle, in 32 groups."""

    widen = 2
    groups = 32

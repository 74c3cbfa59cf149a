"""Pre-activation 3D ResNets: batch norm and ReLU come before each convolution, and not after the sum of a block.

Sources: Hara et al. 2018, arXiv:1711.09577, Table 1; He et al. 2016, "Identity Mappings in Deep Residual Networks",
arXiv:1603.05027, Figure 1b. As in the code of Hara et al., a batch norm and a ReLU follow the stem, but not the last
block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r3d_fast.backend.layers import nn
from r3d_fast.models.classifier import NormConv
from r3d_fast.models.resnet3d import ResNet


@dataclass(frozen=True)
class PreActivationResNet(ResNet):
    """A ResNet of pre-activation blocks."""

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return (PreActivationBottleneck if self.bottleneck else PreActivationBasicBlock)(self, inputs, stage, stride)


class PreActivationBasicBlock(nn.Layer):  # type: ignore[misc]
    """A residual block of two 3x3x3 convolutions, and a shortcut."""

    def __init__(self, arch: ResNet, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs = arch.outputs(stage)
        self.block = nn.Sequential(
            NormConv(arch.norm(inputs), arch.conv(inputs, outputs, 3, stride, padding=1)),
            NormConv(arch.norm(outputs), arch.conv(outputs, outputs, 3, 1, padding=1)),
        )
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The sum, of any sign."""
        return self.block(x) + self.downsample(x)


class PreActivationBottleneck(nn.Layer):  # type: ignore[misc]
    """A residual block of a 1x1x1 convolution to fewer channels, a 3x3x3 one, a 1x1x1 one to more, and a shortcut."""

    def __init__(self, arch: ResNet, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs, middle = arch.outputs(stage), arch.width * 2**stage
        self.block = nn.Sequential(
            NormConv(arch.norm(inputs), arch.conv(inputs, middle, 1)),
            NormConv(arch.norm(middle), arch.conv(middle, middle, 3, stride, padding=1)),
            NormConv(arch.norm(middle), arch.conv(middle, outputs, 1)),
        )
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The sum, of any sign."""
        return self.block(x) + self.downsample(x)

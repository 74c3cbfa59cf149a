"""R(2+1)D: each 3D convolution is replaced by one over space and one over time, with about as many weights together.

Source: Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition", arXiv:1711.11248,
section 3.5. The sizes are those of the later code of Hara et al. (kenshohara/3D-ResNets-PyTorch, master): the stem has
kernels of 7x7 and 7 with a max pool after it, and the stages halve both time and space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r3d_fast.backend.layers import F, nn
from r3d_fast.models.classifier import ConvNorm
from r3d_fast.models.resnet3d import ResNet


@dataclass(frozen=True)
class R2Plus1D(ResNet):
    """A ResNet with factorised convolutions."""

    def split(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> tuple[Any, Any, int]:
        """(convolution over space, convolution over time, channels between them), which replace one 3D convolution.

        `kernel` and `stride` are those over (time, space). There are as many channels between them as possible without
        more weights than the 3D convolution has.
        """
        frames, side = kernel
        middle = inputs * outputs * frames * side**2 // (inputs * side**2 + outputs * frames)
        space = self.conv(inputs, middle, (1, side, side), (1, stride[1], stride[1]), (0, side // 2, side // 2))
        time = self.conv(middle, outputs, (frames, 1, 1), (stride[0], 1, 1), (frames // 2, 0, 0))
        return space, time, middle

    def stem(self) -> Any:
        """A new stem: the layers before the max pool and the ReLU."""
        space, time, middle = self.split(3, self.width, (self.conv1_t_size, 7), (self.conv1_t_stride, 2))
        return nn.Sequential(ConvNorm(space, self.norm(middle)), ConvNorm(time, self.norm(self.width), relu=False))

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return (FactorisedBottleneck if self.bottleneck else FactorisedBlock)(self, inputs, stage, stride)


class FactorisedBlock(nn.Layer):  # type: ignore[misc]
    """A residual block of two factorised convolutions, each over space and then over time, and a shortcut."""

    def __init__(self, arch: R2Plus1D, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs = arch.outputs(stage)
        space1, time1, middle1 = arch.split(inputs, outputs, (3, 3), (stride, stride))
        space2, time2, middle2 = arch.split(outputs, outputs, (3, 3), (1, 1))
        self.block = nn.Sequential(
            ConvNorm(space1, arch.norm(middle1)),
            ConvNorm(time1, arch.norm(outputs)),
            ConvNorm(space2, arch.norm(middle2)),
            time2,
            arch.norm(outputs),
        )
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The activations, >= 0."""
        return F.relu(self.block(x) + self.downsample(x))


class FactorisedBottleneck(nn.Layer):  # type: ignore[misc]
    """A residual block of a 1x1x1 convolution to fewer channels, a factorised one, a 1x1x1 one to more, a shortcut."""

    def __init__(self, arch: R2Plus1D, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs, width = arch.outputs(stage), arch.width * 2**stage
        space, time, middle = arch.split(width, width, (3, 3), (stride, stride))
        self.block = nn.Sequential(
            ConvNorm(arch.conv(inputs, width, 1), arch.norm(width)),
            ConvNorm(space, arch.norm(middle)),
            ConvNorm(time, arch.norm(width)),
            arch.conv(width, outputs, 1),
            arch.norm(outputs),
        )
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The activations, >= 0."""
        return F.relu(self.block(x) + self.downsample(x))

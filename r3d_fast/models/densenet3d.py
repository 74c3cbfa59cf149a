"""3D DenseNets: each layer gets the outputs of all layers before it in its block.

Sources: Hara et al. 2018, arXiv:1711.09577, Table 1; Huang et al. 2017, arXiv:1608.06993, DenseNet-BC: growth 32 at
width 64, bottlenecks of 4 times the growth, transitions that halve channels and size.
The shapes in comments are those of DenseNet-121 at width 64, for a clip of 16 frames of 112 x 112 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from r3d_fast.backend.layers import F, nn, paddle
from r3d_fast.models.channels_last import average_pool
from r3d_fast.models.classifier import Architecture, ConvNorm, NormConv


@dataclass(frozen=True)
class DenseNet(Architecture):
    """A DenseNet: a stem, a max pool, and four blocks of dense layers with transitions between them."""

    shortcut: str | None = None

    width_step: ClassVar[int] = 2  # because the growth is half the width

    @property
    def growth(self) -> int:
        """The number of channels that a dense layer adds."""
        return self.width // 2

    def inputs(self, block: int) -> int:
        """The number of input channels of a block, 0 to 3."""
        return self.width if block == 0 else self.outputs(block - 1) // 2

    def outputs(self, block: int) -> int:
        """The number of output channels of a block, 0 to 3."""
        return self.inputs(block) + self.blocks[block] * self.growth

    @property
    def features(self) -> int:
        """The number of output channels of the last block."""
        return self.outputs(3)

    def backbone(self) -> Any:
        """A new DenseNetBackbone."""
        return DenseNetBackbone(self)


class DenseLayer(nn.Layer):  # type: ignore[misc]
    """A 1x1x1 and a 3x3x3 convolution, whose output is appended to the input."""

    def __init__(self, arch: DenseNet, inputs: int) -> None:
        super().__init__()
        middle = 4 * arch.growth
        self.block = nn.Sequential(
            NormConv(arch.norm(inputs), arch.conv(inputs, middle, 1)),
            NormConv(arch.norm(middle), arch.conv(middle, arch.growth, 3, padding=1)),
        )
        self.axis = arch.channel_axis

    def forward(self, x: Any) -> Any:
        """`x` with `growth` more channels."""
        return paddle.concat([x, self.block(x)], axis=self.axis)


class Transition(nn.Layer):  # type: ignore[misc]
    """Halves the channels with a 1x1x1 convolution, and the size by averaging. A size of 1 stays 1."""

    def __init__(self, arch: DenseNet, inputs: int) -> None:
        super().__init__()
        self.bn = arch.norm(inputs)
        self.conv = arch.conv(inputs, inputs // 2, 1)
        self.data_format = arch.data_format
        self.axes = arch.other_axes

    def forward(self, x: Any) -> Any:
        """The averages over 2x2x2 voxels; the last voxels of an odd size are dropped."""
        x = self.conv(F.relu(self.bn(x)))
        frames, height, width = (2 if x.shape[axis] > 1 else 1 for axis in self.axes)
        if self.data_format == "NDHWC":
            return average_pool(x, (frames, height, width))
        return F.avg_pool3d(x, [frames, height, width], stride=[frames, height, width])


class DenseNetBackbone(nn.Layer):  # type: ignore[misc]
    """All layers of a DenseNet before the head."""

    def __init__(self, arch: DenseNet) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(arch.stem_conv(), arch.norm(arch.width), relu=False))
        self.pool = arch.pool()
        self.block1 = self._block(arch, 0)
        self.transition1 = Transition(arch, arch.outputs(0))
        self.block2 = self._block(arch, 1)
        self.transition2 = Transition(arch, arch.outputs(1))
        self.block3 = self._block(arch, 2)
        self.transition3 = Transition(arch, arch.outputs(2))
        self.block4 = self._block(arch, 3)
        self.norm = arch.norm(arch.outputs(3))

    @staticmethod
    def _block(arch: DenseNet, block: int) -> Any:
        inputs = arch.inputs(block)
        return nn.Sequential(*(DenseLayer(arch, inputs + i * arch.growth) for i in range(arch.blocks[block])))

    def forward(self, clips: Any) -> Any:
        """The activations, float32 [N, features, T / 16, S / 32, S / 32], sizes rounded down after the max pool.

        Without a max pool they have twice the frames, height and width; with conv1_t_stride 2, half the frames.
        """
        x = self.stem(clips)  # 64 x 16 x 56 x 56
        # ReLU comes after the max pool, because there it has an eighth of the work. Values and gradients are the same.
        x = F.relu(self.pool(x))  # 64 x 8 x 28 x 28
        x = self.transition1(self.block1(x))  # 256 x 8 x 28 x 28, 128 x 4 x 14 x 14
        x = self.transition2(self.block2(x))  # 512 x 4 x 14 x 14, 256 x 2 x 7 x 7
        x = self.transition3(self.block3(x))  # 1024 x 2 x 7 x 7, 512 x 1 x 3 x 3
        return F.relu(self.norm(self.block4(x)))  # 1024 x 1 x 3 x 3

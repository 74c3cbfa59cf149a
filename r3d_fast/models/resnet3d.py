"""3D ResNets with basic or bottleneck blocks, and the variant of ResNet-18 that the reference run trains.

Source: Hara et al. 2018, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", arXiv:1711.09577,
Table 1. The shapes in comments are those at width 64, for a clip of 16 frames of 112 x 112 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r3d_fast.backend.layers import F, nn
from r3d_fast.models.classifier import Architecture, ConvNorm


@dataclass(frozen=True)
class ResNet(Architecture):
    """A ResNet: a stem, a max pool and four stages of residual blocks. The defaults are those of the paper.

    The reference run (justld/3D-ResNets_paddle) differs in four ways. Its 3x3x3 convolutions are padded "SAME": for an
    even size and stride 2 that is 0 before and 1 after, where the paper has 1 and 1. Every block has a projection as
    its shortcut. Every convolution except the stem has a bias. The initial weights are scaled by the number of inputs,
    not of outputs.
    """

    padding: int | str = 1
    project_all: bool = False  # every block has shortcut B, even where the shape does not change
    bottleneck: bool = False  # bottleneck blocks, as in models of 50 and more layers

    def outputs(self, stage: int) -> int:
        """The number of output channels of a stage, 0 to 3."""
        return self.width * (1, 2, 4, 8)[stage] * (4 if self.bottleneck else 1)

    @property
    def features(self) -> int:
        """The number of output channels of the last stage."""
        return self.outputs(3)

    def block(self, inputs: int, stage: int, stride: int) -> Any:
        """A residual block of a stage."""
        return (Bottleneck if self.bottleneck else BasicBlock)(self, inputs, stage, stride)

    def stem(self) -> Any:
        """A new stem: the layers before the max pool and the ReLU."""
        return nn.Sequential(ConvNorm(self.stem_conv(), self.norm(self.stem_width), relu=False))

    def stage(self, stage: int) -> Any:
        """All blocks of a stage, 0 to 3. The first block of each stage except stage 0 halves the size."""
        outputs = self.outputs(stage)
        inputs = self.outputs(stage - 1) if stage else self.stem_width
        first = self.block(inputs, stage, 2 if stage else 1)
        return nn.Sequential(first, *(self.block(outputs, stage, 1) for _ in range(self.blocks[stage] - 1)))

    def backbone(self) -> Any:
        """A new ResNetBackbone."""
        return ResNetBackbone(self)

    def shortcut_layer(self, inputs: int, outputs: int, stride: int) -> Any:
        """The shortcut of a block; with `project_all` it is always a projection."""
        if self.project_all:
            return self.projection(inputs, outputs, stride)
        return super().shortcut_layer(inputs, outputs, stride)


class BasicBlock(nn.Layer):  # type: ignore[misc]
    """A residual block of two 3x3x3 convolutions, and a shortcut."""

    def __init__(self, arch: ResNet, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs = arch.outputs(stage)
        first = arch.conv(inputs, outputs, 3, stride, arch.padding, bias=arch.conv_bias)
        second = arch.conv(outputs, outputs, 3, 1, arch.padding, bias=arch.conv_bias)
        self.block = nn.Sequential(ConvNorm(first, arch.norm(outputs)), second, arch.norm(outputs))
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The activations, >= 0."""
        return F.relu(self.block(x) + self.downsample(x))


class Bottleneck(nn.Layer):  # type: ignore[misc]
    """A residual block of a 1x1x1 convolution to fewer channels, a 3x3x3 one, a 1x1x1 one to more, and a shortcut.

    The 3x3x3 convolution has `widen` times the channels of the stage's width, in `groups` groups.
    """

    widen = 1
    groups = 1

    def __init__(self, arch: ResNet, inputs: int, stage: int, stride: int) -> None:
        super().__init__()
        outputs, middle = arch.outputs(stage), arch.width * 2**stage * self.widen
        self.block = nn.Sequential(
            ConvNorm(arch.conv(inputs, middle, 1), arch.norm(middle)),
            ConvNorm(arch.conv(middle, middle, 3, stride, arch.padding, groups=self.groups), arch.norm(middle)),
            arch.conv(middle, outputs, 1),
            arch.norm(outputs),
        )
        self.downsample = arch.shortcut_layer(inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        """The activations, >= 0."""
        return F.relu(self.block(x) + self.downsample(x))


class ResNetBackbone(nn.Layer):  # type: ignore[misc]
    """All layers of a ResNet before the head."""

    def __init__(self, arch: ResNet) -> None:
        super().__init__()
        self.stem = arch.stem()
        self.pool = arch.pool()
        self.layer1 = arch.stage(0)
        self.layer2 = arch.stage(1)
        self.layer3 = arch.stage(2)
        self.layer4 = arch.stage(3)

    def forward(self, clips: Any) -> Any:
        """The last stage's output, float32 [N, features, T / 16, S / 32, S / 32], sizes rounded up.

        Without a max pool it has twice the frames, height and width; with conv1_t_stride 2, half the frames.
        """
        x = self.stem(clips)  # 64 x 16 x 56 x 56
        # ReLU comes after the max pool, because there it has an eighth of the work. Values and gradients are the same.
        x = F.relu(self.pool(x))  # 64 x 8 x 28 x 28
        x = self.layer1(x)  # 64 x 8 x 28 x 28; bottlenecks: 256, and four times as many below
        x = self.layer2(x)  # 128 x 4 x 14 x 14
        x = self.layer3(x)  # 256 x 2 x 7 x 7
        return self.layer4(x)  # 512 x 1 x 4 x 4

"""3D ResNets of basic blocks: the paper's, and the reference run's variant of its ResNet-18.

Hara et al. 2018, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", arXiv:1711.09577, Table 1.
Sizes below are those of a clip of 16 frames of 112 x 112 px at width 64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from r3d_fast.compat import import_paddle

import_paddle()  # what has to be said to Paddle before it is imported comes first

import paddle  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional as F  # noqa: E402
from paddle.nn.initializer import Constant, Normal, Uniform, XavierUniform  # noqa: E402


@dataclass(frozen=True)
class Architecture:
    """What sets one 3D ResNet apart from another; the defaults are the paper's.

    The reference run (justld/3D-ResNets_paddle) differs in the last four fields: it pads its 3x3x3 convolutions "SAME"
    (an even size at stride 2 gets 0 before and 1 after, where the paper has 1 and 1), gives every convolution but the
    stem's a bias, projects in every block, and scales the initial weights by their inputs instead of their outputs.
    """

    blocks: tuple[int, int, int, int]  # of layer1 to layer4
    shortcut: str  # "A": stride and zero channels; "B": 1x1x1 convolution and batch norm
    data_format: str = "NCDHW"
    width: int = 64
    padding: int | str = 1
    conv_bias: bool = False
    project_all: bool = False
    init: str = "fan_out"

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int], padding: int | str, bias: bool
    ) -> Any:
        """A Conv3D, weights N(0, sqrt(2 / fan)) (He et al. 2015, arXiv:1502.01852, eqs. 10 and 14), bias 0 or none."""
        fan = kernel**3 * (inputs if self.init == "fan_in" else outputs)
        return nn.Conv3D(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            weight_attr=paddle.ParamAttr(initializer=Normal(0.0, math.sqrt(2 / fan))),
            bias_attr=paddle.ParamAttr(initializer=Constant(0.0)) if bias else False,
            data_format=self.data_format,
        )

    def norm(self, channels: int) -> Any:
        """A BatchNorm3D; momentum is the share of the old running value that stays, as Paddle counts it."""
        return nn.BatchNorm3D(channels, momentum=0.9, epsilon=1e-5, data_format=self.data_format)


# Paddle ships no types that mypy reads here, so each subclass of Layer says that its base is Any.
class ConvNorm(nn.Layer):  # type: ignore[misc]
    """Convolution, batch norm, ReLU if wanted."""

    def __init__(self, conv: Any, norm: Any, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.bn = norm
        self.relu = relu

    def forward(self, x: Any) -> Any:
        """The activations, >= 0 with ReLU."""
        x = self.bn(self.conv(x))
        return F.relu(x) if self.relu else x


class ZeroShortcut(nn.Layer):  # type: ignore[misc]
    """Shortcut A: every stride-th voxel, then zeros up to `growth` times the channels. No parameters."""

    def __init__(self, growth: int, stride: int, data_format: str) -> None:
        super().__init__()
        self.growth = growth
        self.stride = stride
        self.data_format = data_format
        self.channels = 1 if data_format == "NCDHW" else 4

    def forward(self, x: Any) -> Any:
        """`x` in the shape of the block's output."""
        x = F.avg_pool3d(x, kernel_size=1, stride=self.stride, data_format=self.data_format)
        # Seen with 2.6.2 and 3.3.1: paddle.inference with oneDNN aborts on F.pad in five dimensions. Seen with 3.3.1:
        # zeros_like and full_like warn when traced, and where warnings are errors that is a segmentation fault.
        zeros = paddle.zeros(paddle.shape(x), dtype=x.dtype)
        return paddle.concat([x] + [zeros] * (self.growth - 1), axis=self.channels)


class BasicBlock(nn.Layer):  # type: ignore[misc]
    """Two 3x3x3 convolutions and a way around them."""

    def __init__(self, arch: Architecture, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = arch.conv(inputs, outputs, 3, stride, arch.padding, arch.conv_bias)
        second = arch.conv(outputs, outputs, 3, 1, arch.padding, arch.conv_bias)
        self.block = nn.Sequential(ConvNorm(first, arch.norm(outputs)), second, arch.norm(outputs))
        if not arch.project_all and stride == 1 and inputs == outputs:
            self.downsample = nn.Identity()
        elif arch.shortcut == "A":
            self.downsample = ZeroShortcut(outputs // inputs, stride, arch.data_format)
        else:
            projection = arch.conv(inputs, outputs, 1, stride, padding=0, bias=arch.conv_bias)
            self.downsample = nn.Sequential(projection, arch.norm(outputs))

    def forward(self, x: Any) -> Any:
        """The activations, >= 0."""
        return F.relu(self.block(x) + self.downsample(x))


class Backbone(nn.Layer):  # type: ignore[misc]
    """Everything before the head."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        width = arch.width
        stem = arch.conv(3, width, 7, (1, 2, 2), padding=3, bias=False)
        self.stem = nn.Sequential(ConvNorm(stem, arch.norm(width), relu=False))
        self.pool = nn.MaxPool3D(3, stride=2, padding=1, data_format=arch.data_format)
        self.layer1 = self._stage(arch, arch.blocks[0], width, width, 1)
        self.layer2 = self._stage(arch, arch.blocks[1], width, 2 * width, 2)
        self.layer3 = self._stage(arch, arch.blocks[2], 2 * width, 4 * width, 2)
        self.layer4 = self._stage(arch, arch.blocks[3], 4 * width, 8 * width, 2)

    @staticmethod
    def _stage(arch: Architecture, blocks: int, inputs: int, outputs: int, stride: int) -> Any:
        first = BasicBlock(arch, inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(arch, outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, clips: Any) -> Any:
        """The last stage's output, float32 [N, 8 * width, T / 16, S / 32, S / 32], sizes rounded up."""
        x = self.stem(clips)  # 64 x 16 x 56 x 56
        # ReLU and maximum may change places, values and gradients the same: ReLU then has an eighth of the work.
        x = F.relu(self.pool(x))  # 64 x 8 x 28 x 28
        x = self.layer1(x)  # 64 x 8 x 28 x 28
        x = self.layer2(x)  # 128 x 4 x 14 x 14
        x = self.layer3(x)  # 256 x 2 x 7 x 7
        return self.layer4(x)  # 512 x 1 x 4 x 4


class Head(nn.Layer):  # type: ignore[misc]
    """Global average, dropout, linear layer."""

    def __init__(self, arch: Architecture, num_classes: int, dropout: float) -> None:
        super().__init__()
        features = 8 * arch.width
        self.axes = [2, 3, 4] if arch.data_format == "NCDHW" else [1, 2, 3]
        self.dropout = nn.Dropout(dropout)
        if arch.init == "fan_in":
            weight, bias = XavierUniform(), Constant(0.0)
        else:
            # What the paper's code leaves to its framework: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both (PyTorch's
            # nn.Linear). Named here in full, so that no default of Paddle's takes part.
            bound = 1 / math.sqrt(features)
            weight, bias = Uniform(-bound, bound), Uniform(-bound, bound)
        self.fc = nn.Linear(
            features,
            num_classes,
            weight_attr=paddle.ParamAttr(initializer=weight),
            bias_attr=paddle.ParamAttr(initializer=bias),
        )

    def pool(self, x: Any) -> Any:
        """Features float32 [N, F] of what the backbone gives: its average over time and place."""
        return paddle.mean(x, axis=self.axes)

    def forward(self, x: Any) -> Any:
        """Logits float32 [N, num_classes]."""
        return self.fc(self.dropout(self.pool(x)))


class ResNet3D(nn.Layer):  # type: ignore[misc]
    """Stem, max pool, four stages, head. `architecture` says which variant it is."""

    def __init__(self, architecture: Architecture, *, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = Backbone(architecture)
        self.head = Head(architecture, num_classes, dropout)
        self.frozen: tuple[Any, ...] = ()  # parts that stay in evaluation mode while the others train

    def train(self) -> None:
        """Put all but the frozen parts in training mode."""
        super().train()
        for part in self.frozen:
            part.eval()

    def forward(self, clips: Any) -> Any:
        """Logits float32 [N, num_classes] of clips float32 [N, 3, T, S, S] (NDHWC: [N, T, S, S, 3])."""
        return self.head(self.backbone(clips))

"""What all model families share: the description of an architecture, its basic layers, and the whole classifier."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from r3d_fast.backend.layers import F, nn, paddle
from r3d_fast.models.channels_last import ChannelsLastBatchNorm, ChannelsLastMaxPool, strided

Size = int | tuple[int, int, int]


@dataclass(frozen=True)
class Architecture(ABC):
    """The description of a model. Each family is a subclass, which adds its own fields and builds its backbone.

    `init` says which size of a convolution scales its initial weights: "fan_out" (the default, as in Hara et al. 2018,
    arXiv:1711.09577) or "fan_in".
    """

    blocks: tuple[int, int, int, int]  # number of blocks in each of the four stages
    shortcut: str | None = "B"  # "A": stride and zero channels; "B": 1x1x1 convolution and batch norm; None: has none
    shortcut_gradient: bool = True  # whether gradients flow back through shortcut A
    conv1_t_size: int = 7  # frames that the stem's kernel spans
    conv1_t_stride: int = 1  # frames from one output of the stem to the next
    max_pool: bool = True  # whether a max pool follows the stem
    stem_factor: int = 1  # channels of the stem as a multiple of the width
    data_format: str = "NCDHW"
    width: int = 64
    conv_bias: bool = False
    init: str = "fan_out"

    width_step: ClassVar[int] = 1  # the width has to be a multiple of this
    stem_factors: ClassVar[tuple[int, ...]] = (1,)  # values that stem_factor may have

    @property
    def stem_width(self) -> int:
        """The number of output channels of the stem."""
        return self.width * self.stem_factor

    @property
    @abstractmethod
    def features(self) -> int:
        """The number of channels in the backbone's output."""

    @abstractmethod
    def backbone(self) -> Any:
        """A new `paddle.nn.Layer` from clips to the input of the head.

        Its children with parameters are the parts that `freeze` names.
        """

    @property
    def channel_axis(self) -> int:
        """The number of the channel axis of a batch."""
        return 1 if self.data_format == "NCDHW" else 4

    @property
    def other_axes(self) -> list[int]:
        """The numbers of the axes for frames, height and width."""
        return [2, 3, 4] if self.data_format == "NCDHW" else [1, 2, 3]

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        *,
        bias: bool = False,
        groups: int = 1,
    ) -> Any:
        """A new Conv3D. Weights are drawn from N(0, sqrt(2 / fan)), a bias starts at 0.

        Source: He et al. 2015, arXiv:1502.01852, equations 10 and 14.
        """
        voxels = kernel**3 if isinstance(kernel, int) else math.prod(kernel)
        fan = voxels * (inputs // groups if self.init == "fan_in" else outputs)
        return nn.Conv3D(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, math.sqrt(2 / fan))),
            bias_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0)) if bias else False,
            data_format=self.data_format,
        )

    def norm(self, channels: int) -> Any:
        """A new BatchNorm3D. In Paddle, momentum is the share of the old running value that is kept."""
        layer = nn.BatchNorm3D if self.data_format == "NCDHW" else ChannelsLastBatchNorm
        return layer(channels, momentum=0.9, epsilon=1e-5, data_format=self.data_format)

    def stem_conv(self) -> Any:
        """The convolution of a stem: a kernel of conv1_t_size x 7 x 7, which halves height and width."""
        frames = self.conv1_t_size
        return self.conv(3, self.stem_width, (frames, 7, 7), (self.conv1_t_stride, 2, 2), (frames // 2, 3, 3))

    def pool(self) -> Any:
        """What follows the stem: a max pool over 3x3x3 voxels with stride 2, or nothing."""
        if not self.max_pool:
            return nn.Identity()
        return nn.MaxPool3D(3, stride=2, padding=1) if self.data_format == "NCDHW" else ChannelsLastMaxPool()

    def shortcut_layer(self, inputs: int, outputs: int, stride: int) -> Any:
        """The shortcut of a residual block: a layer that brings the block's input into the shape of its output."""
        if stride == 1 and inputs == outputs:
            return nn.Identity()
        if self.shortcut == "A":
            return ZeroShortcut(outputs // inputs, stride, self.data_format, gradient=self.shortcut_gradient)
        return self.projection(inputs, outputs, stride)

    def projection(self, inputs: int, outputs: int, stride: int) -> Any:
        """Shortcut B: a 1x1x1 convolution and a batch norm."""
        return nn.Sequential(self.conv(inputs, outputs, 1, stride, bias=self.conv_bias), self.norm(outputs))


# mypy sees no types of Paddle, so it takes the base class of each Layer for Any and has to be told to ignore that.
class ConvNorm(nn.Layer):  # type: ignore[misc]
    """Convolution, batch norm, and ReLU unless `relu` is False."""

    def __init__(self, conv: Any, norm: Any, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.bn = norm
        self.relu = relu

    def forward(self, x: Any) -> Any:
        """The activations; with ReLU they are >= 0."""
        x = self.bn(self.conv(x))
        return F.relu(x) if self.relu else x


class NormConv(nn.Layer):  # type: ignore[misc]
    """Batch norm, ReLU, convolution."""

    def __init__(self, norm: Any, conv: Any) -> None:
        super().__init__()
        self.bn = norm
        self.conv = conv

    def forward(self, x: Any) -> Any:
        """The output of the convolution, which may be negative."""
        return self.conv(F.relu(self.bn(x)))


class ZeroShortcut(nn.Layer):  # type: ignore[misc]
    """Shortcut A: takes every stride-th voxel and appends channels of zeros up to `growth` times as many.

    It has no parameters. Without `gradient` nothing flows back through it.
    """

    def __init__(self, growth: int, stride: int, data_format: str, *, gradient: bool = True) -> None:
        super().__init__()
        self.growth = growth
        self.stride = stride
        self.gradient = gradient
        self.channels = 1 if data_format == "NCDHW" else 4

    def forward(self, x: Any) -> Any:
        """`x` in the shape of the block's output."""
        if self.training and not self.gradient:  # in evaluation a traced graph needs no operation for it
            x = x.detach()
        x = F.avg_pool3d(x, kernel_size=1, stride=self.stride) if self.channels == 1 else strided(x, self.stride)
        # Not F.pad: with it, paddle.inference with oneDNN aborts in five dimensions (seen with 2.6.2 and 3.3.1). Not
        # zeros_like or full_like: they warn when traced, which is a segmentation fault if warnings are errors (3.3.1).
        zeros = paddle.zeros(paddle.shape(x), dtype=x.dtype)
        return paddle.concat([x] + [zeros] * (self.growth - 1), axis=self.channels)


class Head(nn.Layer):  # type: ignore[misc]
    """The last layers: global average pooling, dropout and a linear layer."""

    def __init__(self, architecture: Architecture, num_classes: int, dropout: float) -> None:
        super().__init__()
        features = architecture.features
        self.axes = architecture.other_axes
        self.dropout = nn.Dropout(dropout)
        if architecture.init == "fan_in":
            weight, bias = nn.initializer.XavierUniform(), nn.initializer.Constant(0.0)
        else:
            # The paper's code uses the default of PyTorch's nn.Linear: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight
            # and bias. Paddle's defaults differ.
            bound = 1 / math.sqrt(features)
            weight, bias = nn.initializer.Uniform(-bound, bound), nn.initializer.Uniform(-bound, bound)
        self.fc = nn.Linear(
            features,
            num_classes,
            weight_attr=paddle.ParamAttr(initializer=weight),
            bias_attr=paddle.ParamAttr(initializer=bias),
        )

    def forward(self, x: Any) -> Any:
        """Logits float32 [N, num_classes], from the output `x` of the backbone."""
        return self.logits_and_features(x)[0]

    def logits_and_features(self, x: Any) -> tuple[Any, Any]:
        """(logits float32 [N, num_classes], features float32 [N, features]), from the output `x` of the backbone.

        The features are `x` averaged over frames, height and width, before dropout.
        """
        features = paddle.mean(x, axis=self.axes)
        # In evaluation dropout is not called at all, so that a traced graph has no operation for it.
        return self.fc(self.dropout(features) if self.training else features), features


class Classifier(nn.Layer):  # type: ignore[misc]
    """A whole model: a backbone and a head. `architecture` is its description."""

    def __init__(self, architecture: Architecture, *, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = architecture.backbone()
        self.head = Head(architecture, num_classes, dropout)
        self.frozen: tuple[Any, ...] = ()  # parts that stay in evaluation mode during training; see freeze

    def train(self) -> None:
        """Put the model into training mode, except for the parts whose batch norms are frozen too."""
        super().train()
        for part in self.frozen:
            part.eval()

    def forward(self, clips: Any) -> Any:
        """Logits float32 [N, num_classes] of clips float32 [N, 3, T, S, S] (NDHWC: [N, T, S, S, 3])."""
        return self.head(self.backbone(clips))

    def logits_and_features(self, clips: Any) -> tuple[Any, Any]:
        """(logits float32 [N, num_classes], features float32 [N, architecture.features]) of clips as in `forward`."""
        return self.head.logits_and_features(self.backbone(clips))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A block in which `model` is in evaluation mode and computes no gradients. Afterwards its mode is as before."""
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        if was_training:
            model.train()

"""What the families share: an architecture's description, its smallest parts, the classifier around its backbone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from r3d_fast.backend.layers import F, nn, paddle

Size = int | tuple[int, int, int]


@dataclass(frozen=True)
class Architecture(ABC):
    """What sets one model apart from another; a family adds its own fields and says how its backbone is built.

    `init` is what the initial weights of convolutions are scaled by: "fan_out" in Hara et al. 2018 (arXiv:1711.09577).
    """

    blocks: tuple[int, int, int, int]  # of the four stages
    shortcut: str | None = "B"  # "A": stride and zero channels; "B": 1x1x1 convolution and batch norm; None: has none
    data_format: str = "NCDHW"
    width: int = 64
    conv_bias: bool = False
    init: str = "fan_out"

    width_step: ClassVar[int] = 1  # a width has to be a multiple of it

    @property
    @abstractmethod
    def features(self) -> int:
        """The number of channels that the backbone puts out."""

    @abstractmethod
    def backbone(self) -> Any:
        """A new `paddle.nn.Layer` from clips to what the head takes; its children with parameters are its parts."""

    @property
    def channel_axis(self) -> int:
        """Which axis of a batch has the channels."""
        return 1 if self.data_format == "NCDHW" else 4

    @property
    def other_axes(self) -> list[int]:
        """Frames, height and width."""
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
        """A Conv3D, weights N(0, sqrt(2 / fan)) (He et al. 2015, arXiv:1502.01852, eqs. 10 and 14), bias 0 or none."""
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
        """A BatchNorm3D; momentum is the share of the old running value that stays, as Paddle counts it."""
        return nn.BatchNorm3D(channels, momentum=0.9, epsilon=1e-5, data_format=self.data_format)

    def max_pool(self) -> Any:
        """The maximum over 3x3x3 voxels, at every second one."""
        return nn.MaxPool3D(3, stride=2, padding=1, data_format=self.data_format)

    def way_around(self, inputs: int, outputs: int, stride: int) -> Any:
        """What is added to a residual block's output: its input, brought into that shape where it has another."""
        if stride == 1 and inputs == outputs:
            return nn.Identity()
        if self.shortcut == "A":
            return ZeroShortcut(outputs // inputs, stride, self.data_format)
        return self.projection(inputs, outputs, stride)

    def projection(self, inputs: int, outputs: int, stride: int) -> Any:
        """Shortcut B: 1x1x1 convolution and batch norm."""
        return nn.Sequential(self.conv(inputs, outputs, 1, stride, bias=self.conv_bias), self.norm(outputs))


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


class NormConv(nn.Layer):  # type: ignore[misc]
    """Batch norm, ReLU, convolution."""

    def __init__(self, norm: Any, conv: Any) -> None:
        super().__init__()
        self.bn = norm
        self.conv = conv

    def forward(self, x: Any) -> Any:
        """The convolution's output, of any sign."""
        return self.conv(F.relu(self.bn(x)))


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


class Head(nn.Layer):  # type: ignore[misc]
    """Global average, dropout, linear layer."""

    def __init__(self, architecture: Architecture, num_classes: int, dropout: float) -> None:
        super().__init__()
        features = architecture.features
        self.axes = architecture.other_axes
        self.dropout = nn.Dropout(dropout)
        if architecture.init == "fan_in":
            weight, bias = nn.initializer.XavierUniform(), nn.initializer.Constant(0.0)
        else:
            # What the paper's code leaves to its framework: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both (PyTorch's
            # nn.Linear). Named here in full, so that no default of Paddle's takes part.
            bound = 1 / math.sqrt(features)
            weight, bias = nn.initializer.Uniform(-bound, bound), nn.initializer.Uniform(-bound, bound)
        self.fc = nn.Linear(
            features,
            num_classes,
            weight_attr=paddle.ParamAttr(initializer=weight),
            bias_attr=paddle.ParamAttr(initializer=bias),
        )

    def forward(self, x: Any) -> Any:
        """Logits float32 [N, num_classes] of clips, `x` the backbone's output."""
        return self.logits_and_features(x)[0]

    def logits_and_features(self, x: Any) -> tuple[Any, Any]:
        """(logits float32 [N, num_classes], features float32 [N, features]) of clips, `x` the backbone's output.

        The features are the backbone's output averaged over frames, height and width, before dropout.
        """
        features = paddle.mean(x, axis=self.axes)
        # Not even called in evaluation, so that a traced graph has no operation for it.
        return self.fc(self.dropout(features) if self.training else features), features


class Classifier(nn.Layer):  # type: ignore[misc]
    """A backbone and a head. `architecture` says which model it is."""

    def __init__(self, architecture: Architecture, *, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = architecture.backbone()
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

    def logits_and_features(self, clips: Any) -> tuple[Any, Any]:
        """(logits float32 [N, num_classes], features float32 [N, architecture.features]) of clips as in `forward`."""
        return self.head.logits_and_features(self.backbone(clips))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A block in which `model` is in evaluation mode and nothing gets gradients; then it is in its mode of before."""
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        if was_training:
            model.train()

"""The same network in PyTorch: the ResNets of basic blocks, the reference run's among them, at any width.

The parts have the names that they have in our model, so that weights are copied by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from pipelines.errors import UsageError

_BATCH_NORM = {"_mean": "running_mean", "_variance": "running_var"}  # names of Paddle's buffers: those of PyTorch


@dataclass(frozen=True)
class Design:
    """What a ResNet of basic blocks is made of.

    `like_reference`: as the reference run has it (justld/3D-ResNets_paddle): a projection in every block, biases in all
    convolutions but the stem's, and 'same' padding, which at stride 2 gives an even size no zeros before and one after.
    """

    classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    shortcut: str = "B"
    like_reference: bool = False


def design_of(model: Any) -> Design:
    """The design of our `model`. Raises UsageError where it is no ResNet of basic blocks."""
    from r3d_fast.models.resnet3d import ResNet  # imports Paddle

    own = model.architecture
    if type(own) is not ResNet or own.bottleneck:
        raise UsageError(
            f"no PyTorch model of {type(own).__name__} here; expected model.name r3d18_reference, r3d10, r3d18 or r3d34"
        )
    classes = int(model.head.fc.weight.shape[1])
    return Design(classes, own.blocks, own.width, own.shortcut or "B", like_reference=own.project_all)


def copy_weights(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Give the PyTorch `model` the `weights` of ours, by their names there. Raises UsageError where they don't fit."""
    state = {}
    for name, array in weights.items():
        part, _, last = name.rpartition(".")
        # Paddle keeps the weights of a linear layer as [inputs, outputs].
        value = array.T if array.ndim == 2 else array
        state[f"{part}.{_BATCH_NORM.get(last, last)}"] = torch.from_numpy(np.ascontiguousarray(value))
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(".num_batches_tracked")}
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise UsageError(f"{wrong[0]}: in one of the two models only, or of another shape; expected the same network")
    model.load_state_dict(state, strict=False)  # strict would ask for num_batches_tracked


@contextmanager
def paddle_variances(model: Any) -> Iterator[None]:
    """A block in which the running variances of `model` are those that Paddle would have.

    PyTorch's are those of a sample (divided by n - 1), Paddle's those of the n values of a batch themselves. Training
    is the same with both, evaluation is not.
    """
    norms = [part for part in model.modules() if isinstance(part, _Norm)]
    before = [norm.running_var.clone() for norm in norms]
    for norm in norms:
        norm.running_var *= (norm.values - 1) / norm.values
    try:
        yield
    finally:
        for norm, variance in zip(norms, before, strict=True):
            norm.running_var.copy_(variance)


class _Norm(nn.BatchNorm3d):  # type: ignore[misc]
    """A batch norm that knows the number of values of a channel in the last training batch."""

    values = 2**62  # before the first one: nothing to correct

    def forward(self, x: Any) -> Any:
        if self.training:
            self.values = x.numel() // x.shape[1]
        return super().forward(x)


class ResNet(nn.Module):  # type: ignore[misc]
    """The network of a design, with random weights of PyTorch's own."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.backbone, self.head = _Backbone(design), nn.Module()
        self.head.fc = nn.Linear(8 * design.width, design.classes)

    def forward(self, clips: Any) -> Any:
        """Logits float32 [N, classes] of clips float32 [N, 3, T, S, S]."""
        return self.head.fc(self.backbone(clips).mean((2, 3, 4)))


class _Backbone(nn.Module):  # type: ignore[misc]
    def __init__(self, design: Design) -> None:
        super().__init__()
        width = design.width
        self.stem = nn.Sequential(_ConvNorm(nn.Conv3d(3, width, 7, (1, 2, 2), 3, bias=False), width))
        self.pool = nn.MaxPool3d(3, 2, 1)
        for stage, count in enumerate(design.blocks):
            inputs, outputs = width * 2 ** max(0, stage - 1), width * 2**stage
            first = _Block(design, inputs, outputs, 2 if stage else 1)
            rest = (_Block(design, outputs, outputs, 1) for _ in range(count - 1))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))

    def forward(self, x: Any) -> Any:
        x = self.pool(F.relu(self.stem(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _ConvNorm(nn.Module):  # type: ignore[misc]
    def __init__(self, conv: Any, outputs: int) -> None:
        super().__init__()
        self.conv, self.bn = conv, _Norm(outputs)

    def forward(self, x: Any) -> Any:
        return self.bn(self.conv(x))


class _Block(nn.Module):  # type: ignore[misc]
    def __init__(self, design: Design, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        bias = design.like_reference
        conv = _SamePaddedConv3d if design.like_reference else nn.Conv3d
        first = conv(inputs, outputs, 3, stride, padding=1, bias=bias)
        second = nn.Conv3d(outputs, outputs, 3, 1, padding=1, bias=bias)
        self.block = nn.Sequential(_ConvNorm(first, outputs), second, _Norm(outputs))
        self.downsample = _shortcut(design, inputs, outputs, stride)

    def forward(self, x: Any) -> Any:
        first, second, norm = self.block
        y = norm(second(F.relu(first(x))))
        return F.relu(y + self.downsample(x))


class _SamePaddedConv3d(nn.Conv3d):  # type: ignore[misc]
    """A 3x3x3 convolution padded like Paddle's "SAME": at stride 2 an even size gets no zeros before and one after."""

    def forward(self, x: Any) -> Any:
        if self.stride[0] == 1:
            return super().forward(x)
        x = F.pad(x, [n for size in reversed(x.shape[2:]) for n in ((0, 1) if size % 2 == 0 else (1, 1))])
        return F.conv3d(x, self.weight, self.bias, self.stride)


class _ZeroShortcut(nn.Module):  # type: ignore[misc]
    """Shortcut A: every `stride`-th voxel, and channels of zeros up to `outputs`."""

    def __init__(self, outputs: int, stride: int) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, x: Any) -> Any:
        s = self.stride
        x = x[:, :, ::s, ::s, ::s]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.outputs - x.shape[1]))


def _shortcut(design: Design, inputs: int, outputs: int, stride: int) -> Any:
    if stride == 1 and inputs == outputs and not design.like_reference:
        return nn.Identity()
    if design.shortcut == "A":
        return _ZeroShortcut(outputs, stride)
    conv = nn.Conv3d(inputs, outputs, 1, stride, bias=design.like_reference)
    return nn.Sequential(conv, _Norm(outputs))


def runner(mode: str, threads: int, batch: int, clip: tuple[int, ...], classes: int) -> Callable[[], float]:
    """One training step (its loss), or one evaluation (the sum of its logits) a call, of the reference's ResNet-18."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = ResNet(Design(classes, like_reference=True))
    clips, labels = torch.randn(batch, *clip), torch.arange(batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-3)

    def train() -> float:
        loss = F.cross_entropy(model(clips), labels)
        value = float(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value

    def evaluate() -> float:
        with torch.no_grad():
            return float(model(clips).sum())

    model.train(mode == "train")
    return train if mode == "train" else evaluate

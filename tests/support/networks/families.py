"""A second, independent account of the authors' models: names and shapes of their weights, and logits by PyTorch.

It is written from Hara et al. 2018 (arXiv:1711.09577, Table 1), the options of their later code, and the names in their
files, and does not use Paddle.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[np.float32]]
Shape = tuple[int, ...]
DEPTHS = {
    **{10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)},
    **{152: (3, 8, 36, 3), 200: (3, 24, 36, 3)},
    **{121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)},
}
# Our name of a model: the authors' family and depth.
NAMES = {
    **{f"r3d{depth}": ("resnet", depth) for depth in (10, 18, 34, 50, 101, 152, 200)},
    **{f"preact{depth}": ("preresnet", depth) for depth in (18, 34, 50, 101, 152, 200)},
    "wide50": ("wideresnet", 50),
    **{f"resnext{depth}": ("resnext", depth) for depth in (50, 101, 152)},
    **{f"densenet{depth}": ("densenet", depth) for depth in (121, 169, 201, 264)},
    **{f"r2plus1d{depth}": ("resnet2p1d", depth) for depth in (18, 34, 50)},
}


def shapes(
    name: str, *, shortcut: str = "B", classes: int = 400, width: int = 64, conv1_t_size: int = 7, stem_factor: int = 1
) -> dict[str, Shape]:
    """The name and shape of every tensor in the authors' file for our model `name`."""
    family, depth = NAMES[name]
    make = _dense if family == "densenet" else _residual
    return dict(make(family, depth, shortcut, classes, width, conv1_t_size, width * stem_factor))


def _norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{tensor}", (channels,)


def _between(inputs: int, outputs: int, frames: int, side: int) -> int:
    """The channels between the convolution over space and the one over time (Tran et al. 2018, section 3.5)."""
    return inputs * outputs * frames * side**2 // (inputs * side**2 + outputs * frames)


def _residual(
    family: str, depth: int, shortcut: str, classes: int, width: int, frames: int, stem: int
) -> Iterator[tuple[str, Shape]]:
    if family == "resnet2p1d":
        middle = _between(3, stem, frames, 7)
        yield "conv1_s.weight", (middle, 3, 1, 7, 7)
        yield from _norm("bn1_s", middle)
        yield "conv1_t.weight", (stem, middle, frames, 1, 1)
        yield from _norm("bn1_t", stem)
    else:
        yield "conv1.weight", (stem, 3, frames, 7, 7)
        yield from _norm("bn1", stem)
    inputs = stem
    for stage, blocks in enumerate(DEPTHS[depth]):
        outputs = width * 2**stage * (4 if depth >= 50 else 1)
        for block in range(blocks):
            prefix = f"layer{stage + 1}.{block}"
            for names, shape in _convs(family, depth, inputs, outputs, width * 2**stage):
                yield f"{prefix}.{names[0]}.weight", shape
                yield from _norm(f"{prefix}.{names[1]}", shape[1] if family == "preresnet" else shape[0])
            if shortcut == "B" and block == 0 and (stage or inputs != outputs):
                yield f"{prefix}.downsample.0.weight", (outputs, inputs, 1, 1, 1)
                yield from _norm(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (classes, inputs)
    yield "fc.bias", (classes,)


def _convs(family: str, depth: int, inputs: int, outputs: int, width: int) -> Iterator[tuple[tuple[str, str], Shape]]:
    if family == "resnet2p1d" and depth >= 50:
        middle = _between(width, width, 3, 3)
        yield ("conv1", "bn1"), (width, inputs, 1, 1, 1)
        yield ("conv2_s", "bn2_s"), (middle, width, 1, 3, 3)
        yield ("conv2_t", "bn2_t"), (width, middle, 3, 1, 1)
        yield ("conv3", "bn3"), (outputs, width, 1, 1, 1)
    elif family == "resnet2p1d":
        for number, (i, o) in enumerate(((inputs, outputs), (outputs, outputs)), 1):
            middle = _between(i, o, 3, 3)
            yield (f"conv{number}_s", f"bn{number}_s"), (middle, i, 1, 3, 3)
            yield (f"conv{number}_t", f"bn{number}_t"), (o, middle, 3, 1, 1)
    elif depth < 50:
        yield ("conv1", "bn1"), (outputs, inputs, 3, 3, 3)
        yield ("conv2", "bn2"), (outputs, outputs, 3, 3, 3)
    else:
        middle = width * (2 if family in ("wideresnet", "resnext") else 1)
        yield ("conv1", "bn1"), (middle, inputs, 1, 1, 1)
        yield ("conv2", "bn2"), (middle, middle // (32 if family == "resnext" else 1), 3, 3, 3)
        yield ("conv3", "bn3"), (outputs, middle, 1, 1, 1)


def _dense(
    family: str, depth: int, shortcut: str, classes: int, width: int, frames: int, stem: int
) -> Iterator[tuple[str, Shape]]:
    growth, channels = width // 2, width
    yield "features.conv1.weight", (stem, 3, frames, 7, 7)
    yield from _norm("features.norm1", width)
    for block, layers in enumerate(DEPTHS[depth], 1):
        for layer in range(1, layers + 1):
            prefix = f"features.denseblock{block}.denselayer{layer}"
            yield from _norm(f"{prefix}.norm1", channels)
            yield f"{prefix}.conv1.weight", (4 * growth, channels, 1, 1, 1)
            yield from _norm(f"{prefix}.norm2", 4 * growth)
            yield f"{prefix}.conv2.weight", (growth, 4 * growth, 3, 3, 3)
            channels += growth
        if block < 4:
            yield from _norm(f"features.transition{block}.norm", channels)
            yield f"features.transition{block}.conv.weight", (channels // 2, channels, 1, 1, 1)
            channels //= 2
    yield from _norm("features.norm5", channels)
    yield "classifier.weight", (classes, channels)
    yield "classifier.bias", (classes,)


def older(names: dict[str, Any]) -> dict[str, Any]:
    """The same tensors with the names that they have in the authors' first files."""
    renamed = {}
    for name, value in names.items():
        name = name.replace("features.conv1", "features.conv0").replace("features.norm1", "features.norm0")
        for kind in ("conv", "norm"):
            for number in "12":
                if ".denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        renamed[f"module.{name}"] = value
    return renamed


def of_torchvision(state: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the authors' R3D-18 by the names that torchvision gives them."""
    named = {}
    for name, value in state.items():
        name = re.sub(r"^conv1\.", "stem.0.", re.sub(r"^bn1\.", "stem.1.", name))
        name = re.sub(r"(layer\d\.\d)\.conv(\d)\.", r"\1.conv\2.0.", name)
        named[re.sub(r"(layer\d\.\d)\.bn(\d)\.", r"\1.conv\2.1.", name)] = value
    return named


def drawn(wanted: dict[str, Shape]) -> State:
    """Random weights with values as after training; the seed of each tensor is its name."""
    state = {}
    for name, shape in wanted.items():
        random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        if len(shape) > 1:
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            # The weights of norms are near 0.5, so that values do not grow from block to block.
            value = 0.1 * random.standard_normal(shape) + (0.5 if name.endswith("weight") else 0.0)
        state[name] = value.astype(np.float32)
    return state


def clip(frames: int = 16, side: int = 56, count: int = 2) -> NDArray[np.float32]:
    """`count` clips float32 [count, 3, frames, side, side]."""
    return np.random.Generator(np.random.PCG64(7)).standard_normal((count, 3, frames, side, side)).astype(np.float32)


def torch_logits(
    name: str, state: State, clips: NDArray[np.float32], *, conv1_t_stride: int = 1, max_pool: bool = True
) -> NDArray[np.float32]:
    """The logits that PyTorch computes in evaluation mode."""
    import torch

    weights = {key: torch.from_numpy(value) for key, value in state.items()}
    with torch.no_grad():
        logits = _Torch(name, weights, conv1_t_stride, max_pool).logits(torch.from_numpy(clips))
    return logits.numpy()


def torch_gradients(
    name: str, state: State, clips: NDArray[np.float32], labels: list[int], *, shortcut_gradient: bool
) -> State:
    """The gradients of the mean cross entropy in training mode; without `shortcut_gradient` shortcut A is detached."""
    import torch

    weights = {key: torch.from_numpy(value.copy()) for key, value in state.items()}
    learned = {key: value.requires_grad_() for key, value in weights.items() if "running" not in key}
    network = _Torch(name, weights, training=True, shortcut_gradient=shortcut_gradient)
    torch.nn.functional.cross_entropy(network.logits(torch.from_numpy(clips)), torch.tensor(labels)).backward()
    return {key: value.grad.numpy() for key, value in learned.items()}


class _Torch:
    """Computes what a network with these weights does, by PyTorch's functions."""

    def __init__(
        self, name: str, weights: dict[str, Any], stride: int = 1, max_pool: bool = True, *, training: bool = False,
        shortcut_gradient: bool = True,
    ) -> None:  # fmt: skip
        from torch.nn import functional

        self.family, self.depth = NAMES[name]
        self.weights, self.f, self.stride, self.max_pool = weights, functional, stride, max_pool
        self.training, self.shortcut_gradient = training, shortcut_gradient

    def logits(self, x: Any) -> Any:
        x = self._dense(x) if self.family == "densenet" else self._residual(x)
        last = "classifier" if self.family == "densenet" else "fc"
        return self.f.linear(x.mean((2, 3, 4)), self.weights[f"{last}.weight"], self.weights[f"{last}.bias"])

    def _conv(self, x: Any, name: str, stride: Any = 1, groups: int = 1) -> Any:
        weight = self.weights[f"{name}.weight"]
        return self.f.conv3d(x, weight, stride=stride, padding=tuple(k // 2 for k in weight.shape[2:]), groups=groups)

    def _norm(self, x: Any, name: str) -> Any:
        mean, variance = self.weights[f"{name}.running_mean"], self.weights[f"{name}.running_var"]
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.f.batch_norm(x, mean, variance, scale, shift, training=self.training)

    def _conv_norm(self, x: Any, number: str, prefix: str = "", stride: Any = 1, groups: int = 1) -> Any:
        return self._norm(self._conv(x, f"{prefix}conv{number}", stride, groups), f"{prefix}bn{number}")

    def _norm_conv(self, x: Any, norm: str, conv: str, stride: Any = 1) -> Any:
        return self._conv(self.f.relu(self._norm(x, norm)), conv, stride)

    def _residual(self, x: Any) -> Any:
        if self.family == "resnet2p1d":
            x = self.f.relu(self._conv_norm(x, "1_s", stride=(1, 2, 2)))
            x = self.f.relu(self._conv_norm(x, "1_t", stride=(self.stride, 1, 1)))
        else:
            x = self.f.relu(self._conv_norm(x, "1", stride=(self.stride, 2, 2)))
        x = self._pool(x)
        for stage, blocks in enumerate(DEPTHS[self.depth], 1):
            for block in range(blocks):
                x = self._block(x, f"layer{stage}.{block}.", 2 if block == 0 and stage > 1 else 1)
        return x

    def _block(self, x: Any, prefix: str, stride: int) -> Any:
        if self.family == "preresnet":
            strides = [stride, 1] if self.depth < 50 else [1, stride, 1]
            out = x
            for number, step in enumerate(strides, 1):
                out = self._norm_conv(out, f"{prefix}bn{number}", f"{prefix}conv{number}", step)
            return out + self._around(x, out, prefix, stride)
        if self.family == "resnet2p1d" and self.depth >= 50:
            steps = [("1", 1), ("2_s", (1, stride, stride)), ("2_t", (stride, 1, 1)), ("3", 1)]
        elif self.family == "resnet2p1d":
            steps = [("1_s", (1, stride, stride)), ("1_t", (stride, 1, 1)), ("2_s", 1), ("2_t", 1)]
        else:
            steps = [("1", stride), ("2", 1)] if self.depth < 50 else [("1", 1), ("2", stride), ("3", 1)]
        out = x
        for number, step in steps:
            groups = 32 if self.family == "resnext" and number == "2" else 1
            out = self._conv_norm(out, number, prefix, step, groups)
            if number != steps[-1][0]:
                out = self.f.relu(out)
        return self.f.relu(out + self._around(x, out, prefix, stride))

    def _pool(self, x: Any) -> Any:
        return self.f.max_pool3d(x, 3, 2, 1) if self.max_pool else x

    def _around(self, x: Any, out: Any, prefix: str, stride: int) -> Any:
        if f"{prefix}downsample.0.weight" in self.weights:
            return self._norm(self._conv(x, f"{prefix}downsample.0", stride), f"{prefix}downsample.1")
        if out.shape == x.shape:
            return x
        x = (x if self.shortcut_gradient else x.detach())[:, :, ::stride, ::stride, ::stride]
        return self.f.pad(x, (0, 0, 0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))

    def _dense(self, x: Any) -> Any:
        import torch

        x = self.f.relu(self._norm(self._conv(x, "features.conv1", (self.stride, 2, 2)), "features.norm1"))
        x = self._pool(x)
        for block, layers in enumerate(DEPTHS[self.depth], 1):
            for layer in range(1, layers + 1):
                prefix = f"features.denseblock{block}.denselayer{layer}."
                new = self._norm_conv(x, f"{prefix}norm1", f"{prefix}conv1")
                x = torch.cat([x, self._norm_conv(new, f"{prefix}norm2", f"{prefix}conv2")], 1)
            if block < 4:
                transition = f"features.transition{block}."
                x = self.f.avg_pool3d(self._norm_conv(x, f"{transition}norm", f"{transition}conv"), 2, 2)
        return self.f.relu(self._norm(x, "features.norm5"))

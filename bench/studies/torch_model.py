"""The same network in PyTorch, to compare speeds with: the reference run's ResNet-18, any weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def runner(mode: str, threads: int, batch: int, clip: tuple[int, ...], classes: int) -> Callable[[], float]:
    """One training step (its loss), or one evaluation (the sum of its logits) a call. Raises ImportError."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class SamePaddingConv3d(nn.Conv3d):  # type: ignore[misc]
        """A convolution padded like Paddle's "SAME": at stride 2 an even size gets no zeros before and one after."""

        def forward(self, x: Any) -> Any:
            if self.stride[0] == 2:
                x = F.pad(x, [n for size in reversed(x.shape[2:]) for n in ((0, 1) if size % 2 == 0 else (1, 1))])
            return super().forward(x)

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            first = SamePaddingConv3d(inputs, outputs, 3, stride, 0 if stride == 2 else 1)
            second = nn.Conv3d(outputs, outputs, 3, 1, 1)
            norms = [nn.BatchNorm3d(outputs) for _ in range(3)]
            self.block = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1])
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride), norms[2])

        def forward(self, x: Any) -> Any:
            return F.relu(self.block(x) + self.downsample(x))

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    stem = [nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False), nn.BatchNorm3d(64), nn.ReLU(), nn.MaxPool3d(3, 2, 1)]
    sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [block for i, o, stride in sizes for block in (Block(i, o, stride), Block(o, o, 1))]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, classes))
    clips, labels = torch.randn(batch, *clip), torch.arange(batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-3)

    def train() -> float:
        loss = F.cross_entropy(model(clips), labels)
        value = float(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value

    def evaluate() -> float:
        with torch.no_grad():
            return float(model(clips).sum())

    model.train(mode == "train")
    return train if mode == "train" else evaluate

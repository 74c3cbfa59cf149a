"""A .pth of the authors' networks, imported, computes what PyTorch computes, and its pixels are scaled as theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r3d_fast.checkpoint import CheckpointError
from r3d_fast.cli import cli, run_cli
from r3d_fast.compat import import_paddle
from r3d_fast.normalisation import NORMALISATIONS
from r3d_fast.restore import restore
from r3d_fast.weights import import_weights

paddle = import_paddle()
torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'r3d-fast[torch]'")
F = torch.nn.functional
WIDTH = 4


class Network:
    """A basic-block 3D ResNet under the names of the authors' files (Hara et al. 2018, Table 1), width 4."""

    def __init__(self, blocks: int, shortcut: str, classes: int, seed: int = 0) -> None:
        self.blocks, self.shortcut, self.state = blocks, shortcut, {}
        self.draw = torch.Generator().manual_seed(seed)
        self.conv("conv1", 3, WIDTH, 7)
        self.norm("bn1", WIDTH)
        inputs = WIDTH
        for layer in range(1, 5):
            for block in range(blocks):
                outputs, name = WIDTH * 2 ** (layer - 1), f"layer{layer}.{block}"
                for number, channels in ((1, inputs), (2, outputs)):
                    self.conv(f"{name}.conv{number}", channels, outputs, 3)
                    self.norm(f"{name}.bn{number}", outputs)
                if shortcut == "B" and inputs != outputs:
                    self.conv(f"{name}.downsample.0", inputs, outputs, 1)
                    self.norm(f"{name}.downsample.1", outputs)
                inputs = outputs
        self.state["fc.weight"], self.state["fc.bias"] = self.normal(classes, inputs), self.normal(classes)

    def normal(self, *shape: int, scale: float = 0.1) -> Any:
        return torch.randn(shape, generator=self.draw) * scale

    def conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        self.state[f"{name}.weight"] = self.normal(
            outputs, inputs, kernel, kernel, kernel, scale=(2 / inputs / kernel**3) ** 0.5
        )

    def norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"], self.state[f"{name}.bias"] = 1 + self.normal(channels), self.normal(channels)
        self.state[f"{name}.running_mean"] = self.normal(channels)
        self.state[f"{name}.running_var"] = 1 + self.normal(channels) ** 2

    def _conv(self, x: Any, name: str, stride: Any, padding: int) -> Any:
        return F.conv3d(x, self.state[f"{name}.weight"], stride=stride, padding=padding)

    def _norm(self, x: Any, name: str) -> Any:
        values = [self.state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values)

    def __call__(self, clips: Any) -> Any:
        x = F.relu(self._norm(self._conv(clips, "conv1", (1, 2, 2), 3), "bn1"))
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        for layer in range(1, 5):
            for block in range(self.blocks):
                name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
                y = F.relu(self._norm(self._conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
                y = self._norm(self._conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
                if y.shape != x.shape:
                    if self.shortcut == "B":
                        x = self._norm(self._conv(x, f"{name}.downsample.0", stride, 0), f"{name}.downsample.1")
                    else:
                        x = F.avg_pool3d(x, 1, stride=stride)
                        x = torch.cat([x, torch.zeros_like(x)], 1)
                x = F.relu(x + y)
        return F.linear(x.mean((2, 3, 4)), self.state["fc.weight"], self.state["fc.bias"])

    def save(self, path: Path, *, module: bool, counters: bool, legacy: bool, bare: bool = False, **more: Any) -> Path:
        state = dict(self.state)
        if counters:
            norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
            state |= {f"{name}num_batches_tracked": torch.tensor(7) for name in norms}
        state = {("module." if module else "") + name: value for name, value in state.items()}
        content = state if bare else {"epoch": 3, "state_dict": state, "optimizer": {"param_groups": []}, **more}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return path


@pytest.mark.parametrize(
    ("blocks", "shortcut", "classes", "form", "model", "scale"),
    [
        (1, "B", 400, {"module": True, "counters": False, "legacy": True, "arch": "resnet-10"}, "r3d10", "hara"),
        (2, "A", 400, {"module": True, "counters": False, "legacy": True, "arch": "resnet-18"}, "r3d18", "hara"),
        (2, "B", 700, {"module": False, "counters": True, "legacy": False, "arch": "resnet-18"}, "r3d18", "kinetics"),
        (2, "B", 5, {"module": True, "counters": True, "legacy": False, "bare": True}, "r3d18", "kinetics"),
    ],
)
def test_an_imported_pth_computes_what_pytorch_computes(
    tmp_path: Path, blocks: int, shortcut: str, classes: int, form: dict[str, Any], model: str, scale: str
) -> None:
    network = Network(blocks, shortcut, classes)
    imported = import_weights(network.save(tmp_path / "m.pth", **form), tmp_path / "w.safetensors")
    restored = restore(tmp_path / "w.safetensors")
    config = restored.config
    assert (config.model.name, config.model.shortcut, len(restored.classes)) == (model, shortcut, classes)
    assert (imported.normalisation, imported.guessed) == (scale, True)
    assert {key: getattr(config.augment, key) for key in NORMALISATIONS[scale]} == NORMALISATIONS[scale]
    assert (config.clip.sampling, config.clip.num_frames, config.eval.views) == ("consecutive", 16, "all")
    clips = np.random.default_rng(0).normal(size=(2, 3, 16, 56, 56)).astype(np.float32)
    theirs = network(torch.from_numpy(clips)).numpy()
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(restored.model(paddle.to_tensor(clips)).numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fc.bias": None}, "does not fit the model: missing head.fc.bias"),
        (
            {"layer2.0.conv2.weight": (8, 8, 1, 1, 1)},
            "1.weight is [8, 8, 1, 1, 1], the model has [8, 8, 3, 3, 3]",
        ),
        ({"layer1.0.extra.weight": (3,)}, "layer1.0.extra"),
        ({"layer3.0.conv1.weight": float("nan")}, "NaN or infinite numbers in module.layer3.0.conv1.weight; "),
        ({"layer4.0.conv1.weight": None}, "r3d"),
    ],
)
def test_a_pth_that_does_not_fit_ends_with_5_and_its_keys(
    tmp_path: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network(1, "B", 5)
    for name, value in change.items():
        if value is None:
            del network.state[name]
        else:
            network.state[name] = torch.zeros(value) if isinstance(value, tuple) else network.state[name] * value
    file = network.save(tmp_path / "m.pth", module=True, counters=False, legacy=False)
    args = ["import-weights", str(file), "-o", str(tmp_path / "w.safetensors")]
    assert run_cli(cli, args, "r3d-fast") == 5
    err = capsys.readouterr().err
    assert err.startswith(f"r3d-fast: {file}: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "w.safetensors").exists()


def test_a_file_that_says_another_architecture_than_its_tensors_is_refused(tmp_path: Path) -> None:
    form = {"module": True, "counters": False, "legacy": False}
    file = Network(1, "B", 5).save(tmp_path / "m.pth", arch="resnet-18", **form)
    with pytest.raises(CheckpointError, match="the file says resnet-18, its tensors are those of r3d10"):
        import_weights(file, tmp_path / "w.safetensors")
    file = Network(1, "B", 5).save(tmp_path / "m.pth", **form)
    with pytest.raises(CheckpointError, match="does not fit the model: missing"):
        import_weights(file, tmp_path / "w.safetensors", model="r3d18")

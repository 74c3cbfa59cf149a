"""The r3d_18 of torchvision: recognised by its names, and worth the same logits; its other networks are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import clip, drawn, of_torchvision, shapes, torch_logits
from torch_files import write_torch

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import build_model
from r3d_fast.weights.foreign.importer import import_summary, import_weights
from r3d_fast.weights.foreign.tensor_names import recognise
from r3d_fast.weights.stored_model import restore

paddle = import_paddle()
COUNT = 33_371_472  # parameters, as torchvision's documentation of R3D_18_Weights says


def weights(width: int = 16, classes: int = 7) -> dict[str, Any]:
    return drawn(shapes("r3d18", shortcut="B", classes=classes, width=width, conv1_t_size=3))


def logits_of(file: Path) -> Any:
    restored = restore(file)
    with paddle.no_grad():
        return restored.model(paddle.to_tensor(clip())).numpy()


def test_the_network_has_as_many_parameters_as_torchvision_says() -> None:
    found = recognise(of_torchvision(shapes("r3d18", conv1_t_size=3)))
    assert (found.model, found.shortcut, found.conv1_t_size, found.num_classes) == ("r3d18", "B", 3, 400)
    model = build_model("r3d18", num_classes=400, shortcut="B", conv1_t_size=3, max_pool=False)
    assert sum(int(parameter.size) for parameter in model.parameters() if not parameter.stop_gradient) == COUNT


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_an_import_takes_scale_stem_and_clips_of_torchvision(tmp_path: Path, legacy: bool) -> None:
    file = write_torch(tmp_path / "m.pth", of_torchvision(weights()), legacy=legacy)
    imported = import_weights(file, tmp_path / "w.safetensors")
    config = imported.config
    assert (config.model.name, config.model.shortcut, config.model.max_pool) == ("r3d18", "B", False)
    assert (config.clip.sampling, config.clip.num_frames, config.clip.stride) == ("consecutive", 16, 2)
    assert (config.augment.value_max, config.augment.mean) == (1, (0.43216, 0.394666, 0.37645))
    assert imported.scale.reason.startswith("that of torchvision, by the names of the tensors")
    assert "clips    16 frames, 2 apart, 5 a video" in import_summary(imported, file)
    fc = restore(tmp_path / "w.safetensors").model.state_dict()["head.fc.weight"].numpy()
    np.testing.assert_array_equal(fc, weights()["fc.weight"].T)


def test_it_computes_what_pytorch_computes(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    import_weights(write_torch(tmp_path / "m.pth", of_torchvision(weights())), tmp_path / "w.safetensors")
    theirs = torch_logits("r3d18", weights(), clip(), max_pool=False)
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(logits_of(tmp_path / "w.safetensors"), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"stem.3.weight": (64, 45, 3, 1, 1)}, "r2plus1d_18"), ({"layer2.0.conv1.0.weight": (32, 16, 1, 3, 3)}, "mc3_18")],
)
def test_other_networks_of_torchvision_are_named_and_refused(change: dict[str, Any], name: str) -> None:
    known = {key: value.shape for key, value in of_torchvision(weights()).items()}
    with pytest.raises(CheckpointError, match=f"a network of torchvision like {name}, which is not built here; expec"):
        recognise({**known, **change})


@pytest.mark.parametrize("extra", ["extra", ".extra", "extra.", "a.b.extra", "stem.0.extra", "layer1.0.conv1.0.extra"])
def test_a_tensor_that_the_network_does_not_have_is_named(tmp_path: Path, extra: str) -> None:
    state = {**of_torchvision(weights()), extra: np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match=rf"m\.pth: r3d18 has no tensors called {re.escape(extra)}$"):
        import_weights(write_torch(tmp_path / "m.pth", state), tmp_path / "w.safetensors")

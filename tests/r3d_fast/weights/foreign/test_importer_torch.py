"""A .pth of the authors' networks, imported, computes what PyTorch computes, and its pixels are scaled as theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import State, clip, drawn, older, shapes, torch_logits

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.importer import import_weights
from r3d_fast.weights.normalisation import NORMALISATIONS
from r3d_fast.weights.stored_model import restore

paddle = import_paddle()
torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'r3d-fast[torch]'")
WIDTH = 16
OLD = {"module": True, "counters": False, "legacy": True}
NEW = {"module": False, "counters": True, "legacy": False}


def saved(
    path: Path, state: State, *, module: bool = True, counters: bool = False, legacy: bool = False, **more: Any
) -> Path:
    """`path`, a checkpoint of the authors' code with these weights."""
    named: dict[str, Any] = older(state) if module else dict(state)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
    if counters:
        norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
        tensors |= {f"{name}num_batches_tracked": torch.tensor(7) for name in norms}
    if not module:
        more = {"scheduler": {"last_epoch": 3}, **more}
    content = {"epoch": 3, "state_dict": tensors, "optimizer": {"param_groups": []}, **more}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize(
    ("name", "shortcut", "classes", "form", "scale"),
    [
        ("r3d18", "A", 400, {**OLD, "arch": "resnet-18"}, "hara"),
        ("r3d34", "B", 700, {**NEW, "arch": "resnet-34"}, "kinetics"),
        ("r3d50", "B", 400, {**OLD, "arch": "resnet-50"}, "hara"),
        ("r3d50", "B", 101, NEW, "kinetics"),
        ("preact18", "B", 400, {**OLD, "arch": "preresnet-18"}, "hara"),
        ("wide50", "B", 400, {**OLD, "arch": "wideresnet-50"}, "hara"),
        ("resnext50", "B", 51, {**OLD, "arch": "resnext-50"}, "hara"),
        ("densenet121", None, 400, {**OLD, "arch": "densenet-121"}, "hara"),
        ("r2plus1d18", "B", 700, {**NEW, "arch": "resnet2p1d-18"}, "kinetics"),
        ("r2plus1d34", "B", 700, {**NEW, "arch": "resnet2p1d-34"}, "kinetics"),
        ("r2plus1d50", "B", 1039, {**NEW, "arch": "resnet2p1d-50"}, "kinetics"),
        ("r3d18", "A", 400, {**OLD, "counters": True, "arch": "resnet-18"}, "hara"),  # trained with a newer PyTorch
        ("r3d50", "B", 700, {**NEW, "counters": False, "arch": "resnet-50"}, "kinetics"),
    ],
)
def test_an_imported_pth_computes_what_pytorch_computes(
    tmp_path: Path, name: str, shortcut: str | None, classes: int, form: dict[str, Any], scale: str
) -> None:
    state = drawn(shapes(name, shortcut=shortcut or "B", classes=classes, width=WIDTH))
    imported = import_weights(saved(tmp_path / "m.pth", state, **form), tmp_path / "w.safetensors")
    restored = restore(tmp_path / "w.safetensors")
    config = restored.config
    assert (config.model.name, config.model.shortcut, len(restored.classes)) == (name, shortcut, classes)
    assert imported.scale.name == scale
    assert "by " in imported.scale.reason
    assert {key: getattr(config.augment, key) for key in NORMALISATIONS[scale]} == NORMALISATIONS[scale]
    views = "paper" if scale == "hara" else "all"  # only the code of CVPR2018 leaves out a last window of one frame
    assert (config.clip.sampling, config.clip.num_frames, config.eval.views) == ("consecutive", 16, views)
    assert not config.clip.reach_end
    theirs = torch_logits(name, state, clip())
    assert np.ptp(theirs) > 0.1
    with paddle.no_grad():
        np.testing.assert_allclose(restored.model(paddle.to_tensor(clip())).numpy(), theirs, atol=1e-4, rtol=0)


def test_a_bare_state_dict_is_read_too(tmp_path: Path) -> None:
    state = drawn(shapes("r3d10", classes=5, width=WIDTH))
    torch.save({name: torch.from_numpy(value).half() for name, value in state.items()}, tmp_path / "m.pth")
    import_weights(tmp_path / "m.pth", tmp_path / "w.safetensors", normalize="kinetics")
    fc = restore(tmp_path / "w.safetensors").model.state_dict()["head.fc.weight"]
    np.testing.assert_array_equal(fc.numpy(), state["fc.weight"].astype(np.float16).astype(np.float32).T)


@pytest.mark.parametrize(
    ("name", "stem", "options", "said"),
    [
        ("wide50", {"stem_factor": 2}, {}, {}),
        ("resnext50", {"stem_factor": 2, "conv1_t_size": 3}, {}, {}),
        ("r3d18", {}, {"conv1_t_stride": 2}, {"conv1_t_stride": 2}),
        ("densenet121", {}, {"no_max_pool": True}, {"max_pool": False}),
        ("r2plus1d50", {}, {"conv1_t_stride": 2, "no_max_pool": True}, {"conv1_t_stride": 2, "max_pool": False}),
    ],
)
def test_a_pth_of_masters_options_computes_what_pytorch_computes(
    tmp_path: Path, name: str, stem: dict[str, Any], options: dict[str, Any], said: dict[str, Any]
) -> None:
    state = drawn(shapes(name, classes=9, width=WIDTH, **stem))
    import_weights(saved(tmp_path / "m.pth", state, **NEW), tmp_path / "w.safetensors", **options)
    restored = restore(tmp_path / "w.safetensors")
    for key, value in (stem | said).items():
        assert getattr(restored.config.model, key) == value
    theirs = torch_logits(name, state, clip(), **said)
    with paddle.no_grad():
        np.testing.assert_allclose(restored.model(paddle.to_tensor(clip())).numpy(), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fc.bias": None}, "does not fit the model: missing head.fc.bias"),
        (
            {"layer2.0.conv2.weight": (8, 8, 1, 1, 1)},
            "1.weight is [8, 8, 1, 1, 1], the model has [32, 32, 3, 3, 3]",
        ),
        ({"layer1.0.extra.weight": (3,)}, "layer1.0.extra"),
        ({"layer3.0.conv1.weight": float("nan")}, "NaN or infinite numbers in module.layer3.0.conv1.weight; "),
        ({"layer4.0.conv1.weight": None}, "r3d"),
    ],
)
def test_a_pth_that_does_not_fit_ends_with_5_and_its_keys(
    tmp_path: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = drawn(shapes("r3d10", classes=5, width=WIDTH))
    for name, value in change.items():
        if value is None:
            del state[name]
        else:
            state[name] = np.zeros(value, np.float32) if isinstance(value, tuple) else state[name] * value
    file = saved(tmp_path / "m.pth", state)
    args = ["import-weights", str(file), "-o", str(tmp_path / "w.safetensors")]
    assert run_cli(cli, args, "r3d-fast") == 5
    err = capsys.readouterr().err
    assert err.startswith(f"r3d-fast: {file}: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "w.safetensors").exists()


def test_a_file_that_says_another_architecture_than_its_tensors_is_refused(tmp_path: Path) -> None:
    state = drawn(shapes("r3d10", classes=5, width=WIDTH))
    with pytest.raises(CheckpointError, match=r"the file says resnet-18, but its tensors are those of r3d10"):
        import_weights(saved(tmp_path / "m.pth", state, arch="resnet-18"), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the model: missing"):
        import_weights(saved(tmp_path / "m.pth", state), tmp_path / "w.safetensors", model="r3d18")
    del state["fc.weight"], state["fc.bias"]
    with pytest.raises(CheckpointError, match="r3d10 without its last layer; expected the whole network"):
        import_weights(saved(tmp_path / "m.pth", state), tmp_path / "w.safetensors")

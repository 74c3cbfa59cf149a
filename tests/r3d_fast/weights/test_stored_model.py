"""Weights that are not those of the model they claim to be: refused whole, with every key named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from from_config import a_learner
from runs import last_checkpoint
from safetensors.numpy import save_file

from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.precision import Precision
from r3d_fast.cli import cli, run_cli
from r3d_fast.config.config import load_config
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.checkpoint import read_tensors

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("runs") / "run", index, "train.epochs=1", "schedule.warmup_epochs=0")


def without(weights: Weights) -> None:
    del weights["head.fc.bias"], weights["backbone.stem.0.bn._mean"]


def renamed(weights: Weights) -> None:
    weights["head.linear.bias"] = weights.pop("head.fc.bias")


def of_other_classes(weights: Weights) -> None:
    weights["head.fc.weight"] = np.zeros((32, 101), np.float32)


def of_another_width(weights: Weights) -> None:
    for name, value in weights.items():
        weights[name] = np.zeros([2 * size for size in value.shape], np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "does not fit the model: missing backbone.stem.0.bn._mean; missing head.fc.bias"),
        (renamed, "does not fit the model: missing head.fc.bias; unexpected head.linear.bias"),
        (of_other_classes, "does not fit the model: head.fc.weight is [32, 101], the model has [32, 8]"),
        (
            of_another_width,
            "backbone.stem.0.conv.weight is [8, 6, 14, 14, 14], the model has [4, 3, 7, 7, 7]; ",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_their_keys(
    index: VideoIndex, run: Path, tmp_path: Path, change: Callable[[Weights], None], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    weights, about = read_tensors(run / "best" / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "w.safetensors", about)
    code = run_cli(cli, ["predict", str(tmp_path / "w.safetensors"), str(index.root / index[0].path)], "r3d-fast")
    err = capsys.readouterr().err
    assert code == 5
    assert said in err
    if change is of_another_width:
        assert err.rstrip().endswith("more")  # ten are named, the others counted


def test_a_file_that_says_nothing_of_itself_is_refused(
    run: Path, tmp_path: Path, index: VideoIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, _ = read_tensors(run / "best" / "model.safetensors")
    save_file(weights, tmp_path / "w.safetensors")
    assert run_cli(cli, ["predict", str(tmp_path / "w.safetensors"), str(index.root / index[0].path)], "r3d-fast") == 5
    assert "does not say which model and classes it holds" in capsys.readouterr().err


def test_a_run_does_not_go_on_from_another_architecture(run: Path) -> None:
    config = load_config("demo", [*tiny.OVERRIDES, "model.width=8", "data.root=unused"]).in_data_format("NCDHW")
    with pytest.raises(CheckpointError, match=r"does not fit the model: backbone\.stem\.0\.conv\.weight"):
        a_learner(config, 8, Precision(), "cpu", last_checkpoint(run))

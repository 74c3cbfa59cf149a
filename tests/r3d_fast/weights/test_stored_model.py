"""Weights that are not those of the model they claim to be: refused whole, with every key named."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from from_config import a_learner
from runs import last_checkpoint
from safetensors.numpy import save_file
from untrained import write_changed

from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import weight_shapes
from r3d_fast.backend.precision import Precision
from r3d_fast.cli import cli, run_cli
from r3d_fast.config.config import load_config
from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import build_model
from r3d_fast.models.cost_table import estimated_parameters
from r3d_fast.weights.tensor_reader import read_tensors

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


def predicted_with(change: Callable[[Weights], None], run: Path, index: VideoIndex, folder: Path) -> int:
    """The exit code of a prediction with the best weights of `run` after a `change`."""
    weights, about = read_tensors(run / "best" / "model.safetensors")
    change(weights)
    write_changed(folder / "w.safetensors", weights, about)
    return run_cli(cli, ["predict", str(folder / "w.safetensors"), str(index.root / index[0].path)], "r3d-fast")


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
    code = predicted_with(change, run, index, tmp_path)
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


PEAK = (
    "import sys\n"
    "from r3d_fast.cli import cli, run_cli\n"
    "code = run_cli(cli, sys.argv[1:], 'r3d-fast')\n"
    # Not getrusage, which counts the process that this one was forked from.
    "most = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    "print(code, int(most.split()[1]) // 1024)\n"
)


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({"name": "r3d18_reference", "width": 512}, 8),
        ({"name": "r3d200", "width": 512}, 8),
        ({"name": "resnext152", "width": 512, "stem_factor": 2}, 8),
        ({}, 400_000),
    ],
)
def test_a_small_file_that_describes_a_huge_network_takes_no_memory(
    run: Path, tmp_path: Path, index: VideoIndex, changes: dict[str, object], classes: int
) -> None:
    """A file of this size that told of a network of 33 million weights once took predict to 6.6 GB."""
    weights, about = read_tensors(run / "best" / "model.safetensors")
    described = json.loads(about["r3d_fast"])
    described["config"]["model"] |= changes
    if classes != 8:
        described["classes"] = ["c"] * classes
    file = write_changed(tmp_path / "w.safetensors", weights, {"r3d_fast": json.dumps(described)})
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "predict", str(file), str(index.root / index[0].path)],
        env={**os.environ, "PYTHONPATH": str(tiny.REPO)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, mib = map(int, done.stdout.split())
    assert code == 5
    assert f"{file}: does not fit the model: " in done.stderr
    assert mib < 800  # Python with Paddle takes some 300


def as_halves(weights: Weights) -> None:
    weights["head.fc.weight"] = weights["head.fc.weight"].astype(np.float16)


def as_integers(weights: Weights) -> None:
    for name, value in weights.items():
        weights[name] = value.astype(np.int64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_halves, "does not fit the model: head.fc.weight is float16, the model has float32\n"),
        (as_integers, "backbone.stem.0.conv.weight is int64, the model has float32; "),
    ],
)
def test_another_dtype_is_named_with_that_of_the_model(
    run: Path, tmp_path: Path, index: VideoIndex, change: Callable[[Weights], None], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code = predicted_with(change, run, index, tmp_path)
    assert code == 5
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "width"), [("r3d18_reference", 128), ("r2plus1d18", 32), ("densenet121", 96)])
def test_the_estimated_size_of_a_model_is_within_a_factor_of_two(name: str, width: int) -> None:
    shapes = weight_shapes(partial(build_model, name, num_classes=1000, width=width))
    assert 0.5 < estimated_parameters(name, 1000, width) / sum(map(math.prod, shapes.values())) < 2.0

"""The published figures of every model: parameters, multiply-adds; what a training step keeps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from click.testing import CliRunner

from r3d_fast.cli import cli
from r3d_fast.models.architectures import MODELS, build_model
from r3d_fast.models.cost import summarise
from r3d_fast.models.cost_table import stored_summaries, table_lines

KINDS = ("r3d10", "preact18", "wide50", "resnext50", "densenet121", "r2plus1d34", "r2plus1d50")
STEMS: tuple[dict[str, Any], ...] = ({"conv1_t_size": 3}, {"conv1_t_stride": 2}, {"max_pool": False})
# Millions of parameters and GMAC at 101 classes and 16 x 112 x 112, counted in the authors' own models.
PUBLISHED = {
    "r3d10": (14.45, 5.65),
    "r3d18": (33.08, 8.30),  # shortcut A
    "r3d34": (63.39, 12.68),  # shortcut A
    "r3d50": (46.41, 10.07),
    "r3d101": (85.45, 13.89),
    "r3d152": (117.61, 18.61),
    "r3d200": (126.81, 25.80),
    "preact200": (126.81, 25.80),
    "wide50": (157.64, 26.24),
    "resnext101": (47.73, 9.57),
    "densenet121": (11.39, 10.40),
    "densenet201": (25.57, 11.24),
}


def counted(model: Any) -> int:
    return sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(name: str) -> None:
    """Of the stored table; that the models cost what it says is the test of the pages, and of some models below."""
    (summary,) = (summary for summary in stored_summaries() if summary.name == name)
    assert (round(summary.parameters / 1e6, 2), round(summary.gmac, 2)) == PUBLISHED[name]


def test_r3d18_with_shortcut_b_has_its_figures_too() -> None:
    summary = summarise("r3d18", shortcut="B")
    assert (round(summary.parameters / 1e6, 2), round(summary.gmac, 2)) == (33.26, 8.31)


def test_the_reference_has_its_figures_to_the_last_digit() -> None:
    summary = summarise("r3d18_reference")
    assert summary.parameters == 33_615_781
    assert round(summary.gmac, 3) == 8.383
    assert summary.features == 512


@pytest.mark.parametrize("name", [*KINDS, "r3d18_reference", "r3d34", "r2plus1d18"])
def test_what_is_described_is_what_is_built(name: str) -> None:
    model = build_model(name, num_classes=7, width=16)
    summary = summarise(name, num_classes=7, width=16, frames=16, size=32)
    assert summary.parameters == counted(model)
    model.eval()
    with paddle.no_grad():
        _, features = model.logits_and_features(paddle.zeros([1, 3, 16, 32, 32]))
    assert list(features.shape) == [1, summary.features]
    assert features.dtype == paddle.float32


def test_describing_a_model_computes_nothing_and_leaves_paddle_as_it_was() -> None:
    paddle.seed(3)
    expected = paddle.normal(shape=[4]).numpy()
    paddle.seed(3)
    summarise("r3d10")
    assert paddle.in_dynamic_mode()
    np.testing.assert_array_equal(paddle.normal(shape=[4]).numpy(), expected)
    build_model("r3d10", width=4)(paddle.zeros([1, 3, 4, 16, 16])).sum().backward()


def test_multiply_adds_and_memory_by_hand() -> None:
    """The smallest network, one block a stage, on a clip of 16x16x16: sizes from the stem on 8, 4, 4, 2, 1, 1."""
    width, classes, voxels = 2, 3, [16 * 8 * 8, 8 * 4 * 4, 8 * 4 * 4, 4 * 2 * 2, 2, 1]
    channels = [width, width, width, 2 * width, 4 * width, 8 * width]
    macs = voxels[0] * width * 3 * 343
    kept = 3 * 16**3 + voxels[0] * channels[0] * 2 + voxels[1] * channels[1] * 2  # clips, norm and pool, pool and ReLU
    for stage in (2, 3, 4, 5):
        n, inputs, outputs = voxels[stage], channels[stage - 1], channels[stage]
        macs += n * outputs * (inputs + outputs) * 27 + (n * outputs * inputs if stage > 2 else 0)
        # both convolutions and the ReLUs after each norm and sum; the projection's convolution
        kept += n * outputs * (4 if stage == 2 else 5)
    summary = summarise("r3d10", num_classes=classes, frames=16, size=16, width=width)
    assert summary.gmac * 1e9 == pytest.approx(macs + channels[5] * classes)
    parameters = counted(build_model("r3d10", num_classes=classes, width=width))
    expected = 4 * (3 * parameters + 8 * (kept + channels[5]))  # the linear layer's input
    assert summary.memory_mib * 2**20 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        *((name, stem) for name in KINDS for stem in STEMS),
        *((name, {"stem_factor": 2}) for name in ("wide50", "resnext50")),
    ],
)
def test_parameters_and_multiply_adds_of_every_stem_are_those_that_the_layers_do(
    name: str, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the shapes that each convolution and linear layer gives when the model runs.

    Of shallow models: the stem is that of the deep ones, and they have every kind of block.
    """
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], blocks=(1, 1, 1, 2)))
    model = build_model(name, num_classes=3, width=16, **choices)
    model.eval()
    macs: list[int] = []

    def note(layer: Any, _inputs: Any, output: Any) -> None:
        each = math.prod(layer.weight.shape[1:]) if isinstance(layer, paddle.nn.Conv3D) else layer.weight.shape[0]
        macs.append(math.prod(output.shape) * each)

    for layer in model.sublayers():
        if isinstance(layer, (paddle.nn.Conv3D, paddle.nn.Linear)):
            layer.register_forward_post_hook(note)
    with paddle.no_grad():
        model(paddle.zeros([1, 3, 16, 32, 32]))
    summary = summarise(name, num_classes=3, width=16, frames=16, size=32, **choices)
    assert summary.parameters == counted(model)
    assert summary.gmac * 1e9 == pytest.approx(sum(macs))


def test_a_shortcut_a_that_passes_no_gradient_keeps_nothing() -> None:
    """With it, each of the three keeps what it takes of its input: 16, 32 and 64 channels of 4x4x4, 2x2x2 and 1."""
    kept = [summarise("r3d18", width=16, size=32, shortcut_gradient=flag).memory_mib for flag in (True, False)]
    assert (kept[0] - kept[1]) * 2**20 == pytest.approx(4 * 8 * (16 * 4**3 + 32 * 2**3 + 64))


def test_the_command_lists_every_model_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: MODELS[name] for name in ("r3d10", "densenet121")}
    monkeypatch.setattr("r3d_fast.models.cost.MODELS", few)
    file = tmp_path / "models.json"
    done = CliRunner().invoke(cli, ["models", "--classes", "5", "--size", "32", "--frames", "8", "--json", str(file)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "shortcut", "parameters"]
    assert [line.split()[:2] for line in lines[1:3]] == [["r3d10", "B"], ["densenet121", "-"]]
    said = json.loads(file.read_text())
    assert (said["classes"], said["frames"], said["size_px"]) == (5, 8, 32)
    assert said["models"][0] == summarise("r3d10", num_classes=5, frames=8, size=32).as_json()
    assert list(table_lines([summarise("r3d10", num_classes=5, frames=8, size=32)]))[1].split() == lines[1].split()


def test_the_stored_table_is_what_the_models_cost_with_any_number_of_classes() -> None:
    """All of it is compared by the test of the pages, as `make docs` writes it."""
    assert [summary.name for summary in stored_summaries()] == list(MODELS)
    for classes, name in ((101, "r3d18"), (5, "densenet121")):
        (stored,) = (summary for summary in stored_summaries(classes) if summary.name == name)
        calculated = summarise(name, num_classes=classes)
        assert (stored.parameters, stored.features) == (calculated.parameters, calculated.features)
        assert stored.gmac == pytest.approx(calculated.gmac, rel=1e-12)
        assert stored.memory_mib == pytest.approx(calculated.memory_mib, rel=1e-12)


def test_the_usual_table_needs_no_paddle(tmp_path: Path) -> None:
    """So it is there at once."""
    code = (
        "import sys; from r3d_fast.cli import cli; cli(['models', '--classes', '5'], standalone_mode=False); "
        "assert 'paddle' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(MODELS) + 4


def test_the_command_needs_sensible_sizes() -> None:
    done = CliRunner().invoke(cli, ["models", "--frames", "0"])
    assert done.exit_code == 2
    assert "--frames" in done.output

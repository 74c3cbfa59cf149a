"""Models of every family as static graphs in both forms, and as ONNX in onnxruntime."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import tiny
from untrained import CLASSES, clips, write_weights

import r3d_fast.export.onnx_file
from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.native_output import native_output_hidden
from r3d_fast.backend.paddle import older_graphs
from r3d_fast.cli import cli, run_cli
from r3d_fast.export.export import export
from r3d_fast.export.manifest import Parity
from r3d_fast.export.onnx_file import open_onnx, write_onnx
from r3d_fast.prediction.restored_network import open_network

# One of each way to build a block, and its width; the deep ones repeat these.
KINDS = {
    "r3d18_reference": 8, "r3d34": 8, "r3d50": 8, "preact18": 8, "wide50": 8, "resnext50": 32, "densenet121": 8,
    "r2plus1d18": 8,
}  # fmt: skip
needs_onnx = pytest.mark.skipif(
    find_spec("paddle2onnx") is None or find_spec("onnxruntime") is None,
    reason="needs paddle2onnx and onnxruntime: pip install '.[onnx]'",
)


def assert_close(parity: Parity) -> None:
    assert parity.batch_sizes == (1, 2, 5)
    for found in (parity.logits, parity.features):
        assert 0.0 < found.max_abs < 2e-5 * found.largest


@pytest.mark.parametrize("name", KINDS)
def test_every_family_is_exported(name: str, tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", name, KINDS[name])
    (parity,) = export(tmp_path / "w.safetensors", tmp_path / "out").about.parity
    assert_close(parity)


@pytest.mark.parametrize("name", ["r3d18_reference", "r3d34", "densenet121", "r2plus1d18"])
def test_families_are_exported_in_the_older_form(name: str, tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", name, KINDS[name])
    (parity,) = export(tmp_path / "w.safetensors", tmp_path / "out", form="2.6").about.parity
    assert parity.file == "model.pdmodel"
    assert_close(parity)


@needs_onnx
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("r3d18_reference", "auto"),
        ("r3d34", "2.6"),
        *(pytest.param(name, "auto", marks=pytest.mark.slow) for name in KINDS),
    ],
)
def test_onnx_gives_what_the_model_gives(name: str, form: Any, tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", name, KINDS[name])
    about = export(tmp_path / "w.safetensors", tmp_path / "out", onnx=True, form=form).about
    assert [parity.file for parity in about.parity] == [about.program, "model.onnx"]
    assert_close(about.parity[1])
    assert "model.onnx" in about.files
    run, engine = open_onnx(tmp_path / "out" / "model.onnx")
    assert engine.startswith("onnxruntime ")
    model = open_network(tmp_path / "w.safetensors", "cpu")
    for count in (4, 1):
        for mine, yours in zip(run(clips(count)), model(clips(count)), strict=True):
            np.testing.assert_allclose(mine, yours, atol=1e-4 * np.abs(yours).max())


@needs_onnx
def test_an_onnx_file_tells_its_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    import onnx

    write_weights(tmp_path / "w.safetensors")
    export(tmp_path / "w.safetensors", tmp_path / "out", onnx=True)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "clips": ["batch", 3, 8, 32, 32], "logits": ["batch", len(CLASSES)], "features": ["batch", 64]
    }  # fmt: skip
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]


class Operated(paddle.nn.Layer):  # type: ignore[misc]
    """A linear layer and an operation on what it gives."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.linear = paddle.nn.Linear(4, 4)
        self.operation = operation

    def forward(self, clips: Any) -> Any:
        x = self.linear(clips)
        return self.operation(x), x


def save_layer(folder: Path, operation: Any) -> None:
    """A static model of that layer, in the form of 2.6."""
    spec = [paddle.static.InputSpec([None, 4], "float32", "clips")]
    with native_output_hidden(), older_graphs():
        paddle.jit.save(Operated(operation), str(folder / "model"), input_spec=spec)


@needs_onnx
def test_an_operator_that_can_not_be_converted_ends_nothing_but_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter aborts its process there, and leaves what it has of its own in the folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    save_layer(tmp_path, paddle.digamma)
    with pytest.raises(EnvironmentProblem) as problem:
        write_onnx(tmp_path / "model.pdmodel", tmp_path / "model.pdiparams", tmp_path / "model.onnx")
    said = str(problem.value)
    assert re.match(r"--onnx: paddle2onnx can't convert this model: .*(unsupported operators|not supported)", said)
    assert "digamma" in said
    assert all(name in said for name in ("paddle2onnx ", "opset 13", f"Paddle {paddle.__version__}"))
    assert "\n" not in said
    assert not (tmp_path / "model.onnx").exists()
    assert not list((tmp_path / "temporary").iterdir())


@needs_onnx
def test_where_onnx_fails_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import r3d_fast.export.export

    def save_other(model: Any, folder: Path, *arguments: Any, **options: Any) -> str:
        save_layer(folder, paddle.digamma)
        return "model.pdmodel"

    write_weights(tmp_path / "w.safetensors")
    monkeypatch.setattr(r3d_fast.export.export, "save_static", save_other)
    monkeypatch.setattr(r3d_fast.export.export, "_check_whole", lambda *arguments: None)
    assert run_cli(cli, ["export", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "out"), "--onnx"], "x") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@needs_onnx
def test_converting_installs_nothing(tmp_path: Path) -> None:
    """paddle2onnx 2.1 has Polygraphy optimise the files it writes, which runs pip: it is never asked for a file."""
    save_layer(tmp_path, paddle.nn.functional.relu)
    code = (
        "import subprocess, sys; from pathlib import Path\n"
        "from r3d_fast.export.onnx_conversion import convert\n"
        "import paddle2onnx\n"
        "started = []\n"
        "sys.addaudithook(lambda event, values: event == 'subprocess.Popen' and started.append(values))\n"
        "folder = Path(sys.argv[1])\n"
        "names = {'inputs': ('clips',), 'outputs': ('a', 'b')}\n"
        "convert(folder / 'model.pdmodel', folder / 'model.pdiparams', folder / 'model.onnx', names)\n"
        "assert (folder / 'model.onnx').is_file()\n"
        "assert 'polygraphy' not in sys.modules\n"
        "assert not any('pip' in map(str, values[1]) for values in started), started\n"
    )
    paths = os.pathsep.join(filter(None, (str(tiny.REPO), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "PIP_NO_INDEX": "1"}  # if it tried all the same
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_without_the_packages_the_line_that_installs_them_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path / "w.safetensors")
    monkeypatch.setattr(r3d_fast.export.onnx_file, "_PACKAGES", ("click", "no_such_package"))
    arguments = ["export", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "out"), "--onnx"]
    assert run_cli(cli, arguments, "r3d-fast") == 4
    said = capsys.readouterr().err
    assert "--onnx: no_such_package not installed; pip install 'r3d-fast[onnx]', or leave --onnx out" in said
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]

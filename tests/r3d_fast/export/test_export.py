"""Exports are the model, complete, checked before they are called good, and take nothing with them when they fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file
from untrained import CLASSES, clips, write_weights

import r3d_fast.export.export
from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import has_newer_graphs, import_paddle
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import CheckpointError, ParityError
from r3d_fast.export.clip_recipe import clip_recipe
from r3d_fast.export.export import export
from r3d_fast.export.inference_engine import InferenceEngine
from r3d_fast.export.static_graph import save_half
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.prediction.restored_network import open_network
from r3d_fast.weights.tensor_reader import read_tensors


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("runs") / "run", index, "train.epochs=1", "schedule.warmup_epochs=0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path)
    return path


def assert_nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_export_predicts_what_its_run_predicts(run: Path, index: VideoIndex, tmp_path: Path) -> None:
    result = export(run, tmp_path / "out")
    assert_nothing_left(tmp_path, "out")
    videos = [index.root / index[number].path for number in range(6)]
    ours, theirs = Predictor(tmp_path / "out", device="cpu")(videos), Predictor(run, device="cpu")(videos)
    assert result.about.classes == index.classes
    seconds = open_network(tmp_path / "out", "cpu").clip_seconds
    assert seconds is not None
    assert seconds == open_network(run, "cpu").clip_seconds
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.error is None
        assert dict(mine.classes) == pytest.approx(dict(yours.classes), abs=1e-4)


def test_a_moved_export_needs_nothing_else_and_speaks_for_itself(run: Path, index: VideoIndex, tmp_path: Path) -> None:
    """A process of its own, the run and its data set out of reach, a folder with spaces and other letters."""
    shutil.copytree(run, tmp_path / "run")
    video = shutil.copy(index.root / index[0].path, tmp_path / "v.avi")
    done = tiny.call("export", tmp_path / "run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert f"{tmp_path / 'out'}: r3d10, 8 classes, clips float32 [N, 3, 4, 16, 16], fp32" in shown
    assert shown[-1] == f"predict: r3d-fast predict {tmp_path / 'out'} VIDEO..."
    assert re.search(r"batches of 1, 2, 5: max abs difference logits \d\S* \(of up to \S+\), features \d", done.stdout)
    assert len(shown) == 1 + len(list((tmp_path / "out").iterdir())) + 1 + 1  # nothing of Paddle's own between
    assert str(index.root) not in (tmp_path / "out" / "r3d_fast.json").read_text(encoding="utf-8")
    moved = (tmp_path / "out").rename(tmp_path / "das Modell für Ö")
    shutil.rmtree(tmp_path / "run")
    done = tiny.call("predict", moved, video, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = Predictor(run, device="cpu")([video])[0].classes[0]
    assert done.stdout.startswith(f"{video}: {expected[0]} {100 * expected[1]:.1f} %")


@pytest.mark.parametrize("form", ["auto", "2.6"])
def test_every_number_of_clips_gives_what_the_model_gives(weights: Path, tmp_path: Path, form: Any) -> None:
    export(weights, tmp_path / "out", form=form)
    newer = form == "auto" and has_newer_graphs()
    program = "model.json" if newer else "model.pdmodel"
    assert_nothing_left(tmp_path / "out", program, "model.pdiparams", "r3d_fast.json")
    engine, model = InferenceEngine(tmp_path / "out"), open_network(weights, "cpu")
    assert engine.classes == CLASSES
    for count in (3, 1, 7):
        for mine, yours in zip(engine(clips(count)), model(clips(count)), strict=True):
            assert mine.shape == yours.shape
            np.testing.assert_allclose(mine, yours, atol=1e-4 * np.abs(yours).max())


def test_a_run_in_channels_last_and_half_precision_is_exported_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path / "w.safetensors", "r3d10", 8, "train.precision=bf16", "model.dropout=0.5")
    assert export(tmp_path / "w.safetensors", tmp_path / "out").about.precision == "fp32"
    assert capfd.readouterr().err == ""  # what a GPU is wanted for is not of interest


def spoiling(patch: pytest.MonkeyPatch) -> None:
    """Have the graph written of weights that are not the model's, as a broken converter would."""
    save = r3d_fast.export.export.save_static

    def save_spoilt(model: Any, *arguments: Any, **options: Any) -> Any:
        model.head.fc.bias.set_value(model.head.fc.bias + 0.125)
        return save(model, *arguments, **options)

    patch.setattr(r3d_fast.export.export, "save_static", save_spoilt)


def test_where_it_is_not_the_model_nothing_is_left(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(weights, tmp_path / "before")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    spoiling(monkeypatch)
    for place in ("before", "new", "deeper/new"):
        assert run_cli(cli, ["export", str(weights), "-o", str(tmp_path / place)], "r3d-fast") == 1
        said = capsys.readouterr()
        assert "the largest difference of the logits is 0.125, of values up to" in said.err
        assert "ok" not in said.out
    assert_nothing_left(tmp_path, "before")
    assert {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()} == whole


def test_a_graph_that_gives_nan_is_not_the_model(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = r3d_fast.export.export.save_static

    def save_nan(model: Any, *arguments: Any, **options: Any) -> Any:
        model.head.fc.bias.set_value(model.head.fc.bias * float("nan"))
        return save(model, *arguments, **options)

    monkeypatch.setattr(r3d_fast.export.export, "save_static", save_nan)
    with pytest.raises(ParityError, match="the largest difference of the logits is nan"):
        export(weights, tmp_path / "out")
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(weights: Path, tmp_path: Path, value: float) -> None:
    arrays, about = read_tensors(weights)
    arrays["head.fc.weight"][0, 0] = value
    arrays["backbone.stem.0.bn._mean"][3] = value
    save_file(arrays, tmp_path / "w.safetensors", about)
    with pytest.raises(CheckpointError, match=r"NaN or infinite numbers in .*head\.fc\.weight"):
        export(tmp_path / "w.safetensors", tmp_path / "out")
    assert_nothing_left(tmp_path, "w.safetensors")


def test_finite_weights_whose_output_is_not_are_refused(weights: Path, tmp_path: Path) -> None:
    arrays, about = read_tensors(weights)
    arrays["head.fc.weight"][:] = 3e38
    save_file(arrays, tmp_path / "w.safetensors", about)
    with pytest.raises(CheckpointError, match="the model gives NaN or infinite values"):
        export(tmp_path / "w.safetensors", tmp_path / "out")


def test_only_a_new_or_empty_folder_or_an_earlier_export_is_written_to(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="mine: not empty, and not an earlier export; give a new folder"):
        export(weights, tmp_path / "mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file: not a folder"):
        export(weights, tmp_path / "file")
    (tmp_path / "out").mkdir()
    export(weights, tmp_path / "out")
    export(weights, tmp_path / "out", form="2.6")
    assert_nothing_left(tmp_path / "out", "model.pdmodel", "model.pdiparams", "r3d_fast.json")
    (tmp_path / "out" / "r3d_fast.json").write_text("{")  # damaged: to be made anew
    export(weights, tmp_path / "out")
    assert InferenceEngine(tmp_path / "out").classes == CLASSES
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(
        UsageError, match=r"an earlier export with other files in it \(notes\.txt\); move these files away"
    ):
        export(weights, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert_nothing_left(tmp_path, "mine", "file", "out")


def test_an_export_is_as_readable_as_any_other_new_folder(weights: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export(weights, tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}


def test_a_place_that_can_not_be_written_is_said(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"out: can't be written: a part of the path is a file; nothing"):
        export(weights, tmp_path / "file" / "out")


@pytest.mark.parametrize("form", ["auto", "2.6"])
@pytest.mark.parametrize("size", [1_000, 300_000])
def test_a_full_disk_leaves_nothing(weights: Path, tmp_path: Path, limit: Any, size: int, form: Any) -> None:
    limit(size)
    with pytest.raises(UsageError, match=r"out: can't be written: .*; nothing was left there"):
        export(weights, tmp_path / "out", form=form)
    limit()
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_not_written_where_it_can_not_be_compared(
    weights: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(r3d_fast.export.export, "choose_device", lambda wanted: "cpu")  # also on a machine with a GPU
    arguments = ["export", str(weights), "-o", str(tmp_path / "out"), "--precision", precision]
    assert run_cli(cli, arguments, "r3d-fast") == 4
    assert "export on a machine with a GPU, or leave --precision out" in capsys.readouterr().err
    assert_nothing_left(tmp_path)


def test_a_conversion_that_converts_nothing_is_said(weights: Path, tmp_path: Path) -> None:
    """As Paddle's CPU build does it: it copies the weights in float32 and returns."""
    export(weights, tmp_path / "out", form="2.6")
    if r3d_fast.export.export.import_paddle().is_compiled_with_cuda():
        pytest.skip("this Paddle can convert")
    with pytest.raises(EnvironmentProblem, match=r"--precision fp16: Paddle .* converted nothing"):
        save_half(tmp_path / "out", "model.pdmodel", "fp16")


def test_what_is_no_model_is_refused(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    for model, code, said in (
        ("empty", 2, "a folder without a model"),
        ("nothing", 2, "no such file or folder"),
        ("cut.safetensors", 5, "not a readable safetensors file"),
    ):
        assert run_cli(cli, ["export", str(tmp_path / model), "-o", str(tmp_path / "out")], "r3d-fast") == code
        assert said in capsys.readouterr().err
    assert_nothing_left(tmp_path, "empty", "cut.safetensors")


def test_the_json_says_how_clips_are_made_and_what_was_found(tmp_path: Path) -> None:
    more = ("augment.value_max=255", "augment.mean=[114.8, 107.7, 99.5]", "augment.std=[1, 1, 1]", "eval.views=all")
    config = write_weights(tmp_path / "w.safetensors", "r3d10", 8, *more, "clip.sampling=consecutive", "clip.stride=2")
    export(tmp_path / "w.safetensors", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "r3d_fast.json").read_text(encoding="utf-8"))
    assert said["classes"] == list(CLASSES)
    assert (said["clip"]["num_frames"], said["clip"]["sampling"], said["clip"]["stride"]) == (8, "consecutive", 2)
    assert (said["augment"]["value_max"], said["augment"]["mean"]) == (255, [114.8, 107.7, 99.5])
    assert said["inputs"][0]["shape"] == [-1, 3, 8, 32, 32]
    assert said["recipe"] == clip_recipe(*config.eval_specs()[:2]).model_dump(mode="json")
    assert "window v begins at b = v * 16" in said["recipe"]["frames"]
    assert [output["shape"] for output in said["outputs"]] == [[-1, 5], [-1, 64]]
    assert said["eval"]["views"] == "all"
    read = InferenceEngine(tmp_path / "out").config
    for section in ("clip", "augment", "eval", "model"):
        assert getattr(read, section) == getattr(config, section)
    assert read.loader.batch_size == config.loader.batch_size


@pytest.mark.parametrize("form", ["auto", "2.6"])
def test_the_json_has_the_names_that_paddle_has_for_inputs_and_outputs(
    weights: Path, tmp_path: Path, form: Any
) -> None:
    export(weights, tmp_path / "out", form=form)
    said = json.loads((tmp_path / "out" / "r3d_fast.json").read_text(encoding="utf-8"))
    inference = import_paddle().inference
    files = [str(tmp_path / "out" / name) for name in (said["program"], "model.pdiparams")]
    predictor = inference.create_predictor(inference.Config(*files))
    assert [entry["name"] for entry in said["inputs"]] == predictor.get_input_names()
    assert [entry["name"] for entry in said["outputs"]] == predictor.get_output_names()
    assert [entry["onnx_name"] for entry in (*said["inputs"], *said["outputs"])] == ["clips", "logits", "features"]


def test_an_export_of_before_there_was_a_recipe_is_read(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    about = tmp_path / "out" / "r3d_fast.json"
    said = json.loads(about.read_text(encoding="utf-8"))
    del said["recipe"], said["clip_seconds"], said["inputs"][0]["onnx_name"]
    about.write_text(json.dumps(said), encoding="utf-8")
    assert InferenceEngine(tmp_path / "out").about.recipe is None


def test_exporting_leaves_the_process_as_it_was(weights: Path, tmp_path: Path) -> None:
    """In a process of its own: Paddle's device, its threads and its mode are those of before."""
    code = (
        "import ctypes, sys; from pathlib import Path\n"
        "from r3d_fast.export.export import export\n"
        "import paddle\n"
        "openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / 'libs' / 'libiomp5.so'))\n"
        "state = lambda: (paddle.get_device(), openmp.omp_get_max_threads(), paddle.in_dynamic_mode())\n"
        "before = state()\n"
        "export(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert state() == before, (state(), before)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tiny.REPO), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, weights, tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr

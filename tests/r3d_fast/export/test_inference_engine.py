"""Exported folders that are opened: whole ones run anywhere, others are refused before Paddle reads a byte of them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from untrained import clips, write_weights

import r3d_fast.export.inference_engine
from pipelines.errors import EnvironmentProblem, UsageError
from r3d_fast.backend.paddle import has_newer_graphs
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import CheckpointError
from r3d_fast.export.export import export
from r3d_fast.export.inference_engine import InferenceEngine, engine_config
from r3d_fast.export.manifest import describe_file, read_exported
from r3d_fast.prediction.network import Network
from r3d_fast.prediction.restored_network import open_network


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write_weights(folder / "w.safetensors")
    return export(folder / "w.safetensors", folder / "out", form="2.6").folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what r3d_fast.json says."""
    path = folder / "r3d_fast.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def sign(folder: Path) -> None:
    """Have r3d_fast.json name the files as they are now, as whoever exchanges them on purpose would."""

    def renew(values: dict[str, Any]) -> None:
        values["files"] = {name: describe_file(folder / name).model_dump() for name in values["files"]}

    rewrite(folder, renew)


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `predict` says of the model in `folder`: one line, exit code 5."""
    capsys.readouterr()
    assert run_cli(cli, ["predict", str(folder), "no.avi"], "r3d-fast") == 5
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert str(folder) in line
    return line


class Foreign:
    """An array of a library that only speaks DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def test_an_engine_is_a_network_on_the_host(exported: Path) -> None:
    network: Network = InferenceEngine(exported, "cpu")
    assert isinstance(open_network(exported, "cpu"), InferenceEngine)
    assert (network.device, network.clip_dtype, network.config.augment.size_px) == ("cpu", "float32", 32)
    batch = clips(3)
    logits, features = network(batch)
    assert (logits.shape, logits.dtype, features.shape, features.dtype) == ((3, 5), np.float32, (3, 64), np.float32)
    for other in (paddle.to_tensor(batch), Foreign(batch)):
        np.testing.assert_array_equal(network(other)[0], logits)
    kept = logits.copy()
    batch[:] = 0.0
    network(clips(2, seed=1))
    np.testing.assert_array_equal(logits, kept)  # it is the caller's, and so is what it was made of
    none = network(clips(0))
    assert [outputs.shape for outputs in none] == [(0, 5), (0, 64)]
    every_second = clips(6)[::2]
    np.testing.assert_array_equal(network(every_second)[0], network(every_second.copy())[0])


@pytest.mark.parametrize(
    "wrong",
    [clips(2).astype(np.float64), clips(2)[0], clips(2, frames=16), clips(2, side=64), np.zeros((0,), np.float32)],
)
def test_clips_of_another_shape_or_type_are_refused(exported: Path, wrong: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"expected float32 \['N', 3, 8, 32, 32\]"):
        InferenceEngine(exported)(wrong)


def test_an_engine_leaves_the_threads_and_prints_nothing(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so"))
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    InferenceEngine(exported)(clips(2))
    assert openmp.omp_get_max_threads() == int(os.environ["OMP_NUM_THREADS"])
    openmp.omp_set_num_threads(before)
    assert capfd.readouterr() == ("", "")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def turned_into_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["model.pdiparams", "model.pdmodel"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flipped, "SHA-256 differs from that in r3d_fast.json: damaged or another file; export again"),
        (cut, "cut short or another file; export again"),
        (emptied, "0 bytes, r3d_fast.json says"),
        (Path.unlink, "missing; copy the whole folder, or export again"),
        (turned_into_a_pipe, "missing; copy the whole folder, or export again"),  # reading it would wait for ever
    ],
)
def test_a_damaged_file_is_refused_by_name(
    copied: Path, name: str, damage: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copied / name)
    line = refused(copied, capsys)
    assert str(copied / name) in line
    assert said in line


def test_a_damaged_onnx_file_is_nothing_that_predicting_needs(copied: Path) -> None:
    rewrite(copied, lambda values: values["files"].update({"model.onnx": {"bytes": 7, "sha256": "0" * 64}}))
    assert InferenceEngine(copied)(clips(1))[0].shape == (1, 5)


def test_a_model_without_its_json_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "r3d_fast.json").unlink()
    assert "a static model without its r3d_fast.json" in refused(copied, capsys)
    with pytest.raises(CheckpointError, match=r"r3d_fast\.json: missing; it names the classes and describes the clips"):
        InferenceEngine(copied)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not readable as JSON"),
        (b'{"format": 1, "clas', "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"format": 1e999}', "export format inf, this version reads 1"),
        (b'{"format": 2}', "export format 2, this version reads 1"),
        (b"{}", "export format None, this version reads 1"),
        (b"[]", "Input should be"),
        (b"null", "Input should be"),
        (b'{"format": 1}', "Field required (and "),
        (b" " * (1 << 24) + b"{}", "expected at most 16777216: not an export of r3d-fast"),
    ],
)
def test_a_json_that_is_none_of_ours_is_refused_in_a_line(
    copied: Path, text: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "r3d_fast.json").write_bytes(text)
    assert said in refused(copied, capsys)


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


def huge_clips(values: dict[str, Any]) -> None:
    """Clips of 51 GB, in all places that tell of them."""
    values["clip"]["num_frames"], values["augment"]["size_px"] = 4096, 1024
    values["inputs"][0]["shape"] = [-1, 3, 4096, 1024, 1024]


PLAIN = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("classes", value=["a", "b"]), "outputs: logits [-1, 5] for 2 classes"),
        (put("batch_size", value=10**9), "batch_size: Input should be less than or equal to 65536"),
        (put("clip", "num_frames", value=10**9), "clip.num_frames: Input should be less than or equal to 4096"),
        (put("augment", "size_px", value=10**9), "augment.size_px: Input should be less than or equal to 1024"),
        (huge_clips, "clip: 4096 frames of 1024 px; expected at most 134217728 pixels"),
        (put("classes", value=[]), "classes: Tuple should have at least 1 item"),
        (put("classes", value="abcde"), "classes: Input should be a valid tuple"),
        (put("classes", 0, value=1), "classes.0: Input should be a valid string"),
        (put("clip", "num_frames", value=16), "inputs: shape [-1, 3, 8, 32, 32], but clip and augment give"),
        (put("augment", "mean", 0, value=float("nan")), "augment.mean.0: Input should be a finite number"),
        (put("augment", "std", value=[0, 0, 0]), "augment: std (0.0, 0.0, 0.0): expected three numbers > 0"),
        (put("augment", "layout", value="NTHWC"), "exported models take clips channels first"),
        (put("outputs", 1, "shape", value=[-1]), "outputs: features [-1], expected [-1, F]"),
        (put("program", value="../w.safetensors"), "program: Input should be 'model.json' or 'model.pdmodel'"),
        (put("program", value="model.json"), "files: model.json is not among them"),
        (put("files", "../w.safetensors", value=PLAIN), "String should match pattern"),
        (put("files", "/etc/passwd", value=PLAIN), "String should match pattern"),
        (put("files", "model.pdiparams", "sha256", value="x"), "files.model.pdiparams.sha256: String should match"),
        (put("files", value={}), "files: model.pdmodel is not among them"),
        (put("precision", value="int8"), "precision: Input should be 'fp32', 'fp16' or 'bf16'"),
        (put("batch_size", value=0), "batch_size: Input should be greater than or equal to 1"),
        (put("surprise", value=1), "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_json_that_contradicts_itself_is_refused_by_its_key(
    copied: Path, change: Callable[[Any], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied, change)
    assert said in refused(copied, capsys)


def test_a_model_of_another_export_is_not_taken_for_the_one_that_is_described(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path / "wide.safetensors", "r3d10", 16)
    export(tmp_path / "wide.safetensors", tmp_path / "wide", form="2.6")
    for name in ("model.pdmodel", "model.pdiparams"):
        shutil.copy(tmp_path / "wide" / name, copied / name)
    assert "another file" in refused(copied, capsys)
    sign(copied)
    said = "the model gives outputs of shapes [[1, 5], [1, 128]] for 1 clips, r3d_fast.json says [[1, 5], [1, 64]]"
    assert said in refused(copied, capsys)


@pytest.mark.parametrize("name", ["model.pdiparams", "model.pdmodel"])
def test_what_paddle_can_not_read_is_a_line_too(copied: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    sign(copied)
    line = refused(copied, capsys)
    version = paddle.__version__
    assert f"Paddle {version} can't run this model, which was exported with Paddle {version} (" in line
    assert line.endswith("export again with the version that is to run it")


def test_the_form_of_paddle_3_is_not_given_to_2_6(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_newer_graphs():
        shutil.rmtree(copied)
        write_weights(tmp_path / "w.safetensors")
        export(tmp_path / "w.safetensors", copied)
        monkeypatch.setattr(r3d_fast.export.inference_engine, "has_newer_graphs", lambda: False)
    else:
        (copied / "model.pdmodel").rename(copied / "model.json")
        rewrite(copied, lambda values: values["files"].update({"model.json": values["files"].pop("model.pdmodel")}))
        rewrite(copied, put("program", value="model.json"))
    assert run_cli(cli, ["predict", str(copied), "no.avi"], "r3d-fast") == 4
    said = capsys.readouterr().err
    assert f"exported in the form of Paddle 3, this is Paddle {paddle.__version__}" in said
    assert "export again with --form 2.6, which both versions read" in said


def test_half_precision_is_not_run_on_a_cpu(copied: Path) -> None:
    rewrite(copied, put("precision", value="fp16"))
    with pytest.raises(EnvironmentProblem, match=r"exported in fp16, in which Paddle has no 3D convolution on the CPU"):
        InferenceEngine(copied, "cpu")


def test_a_gpu_that_is_not_there_is_said(exported: Path) -> None:
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle may have one")
    assert InferenceEngine(exported, "auto").device == "cpu"
    with pytest.raises(EnvironmentProblem, match="this is Paddle's CPU build"):
        InferenceEngine(exported, "gpu")


class Recorded:
    """Stands in for Paddle's inference config on a GPU, which its CPU build refuses to make."""

    def __init__(self, *files: str) -> None:
        self.files, self.calls = files, dict[str, Any]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: self.calls.update({name: values or named})


def test_a_gpu_is_given_the_range_of_shapes_and_the_precision(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle.inference, "Config", Recorded)
    about = read_exported(exported)
    plain = engine_config(exported, about, "gpu", False)
    assert set(plain.calls) == {"disable_glog_info", "enable_use_gpu"}
    config = engine_config(exported, about.model_copy(update={"precision": "fp16"}), "gpu", True)
    assert config.files == (str(exported / "model.pdmodel"), str(exported / "model.pdiparams"))
    assert config.calls["enable_tensorrt_engine"]["precision_mode"] == paddle.inference.PrecisionType.Half
    shapes = [{"clips": [batch, 3, 8, 32, 32]} for batch in (1, 32, 8)]
    assert config.calls["set_trt_dynamic_shape_info"] == tuple(shapes)


class OnGpu(InferenceEngine):
    """An engine that is told that it has a GPU, and computes on the CPU all the same."""

    def _create(self) -> Any:
        self.device = "gpu"
        return super()._create()


def test_without_tensorrt_one_warning_says_why(
    exported: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = InferenceEngine(exported)(clips(40))[0]
    make = engine_config
    monkeypatch.setattr(r3d_fast.export.inference_engine, "tensorrt_version", lambda: (0, 0, 0))
    monkeypatch.setattr(
        r3d_fast.export.inference_engine, "engine_config", lambda *given: make(*given[:2], "cpu", False)
    )
    engine = OnGpu(exported)
    np.testing.assert_allclose(engine(clips(40))[0], expected, atol=1e-5)
    out, err = capfd.readouterr()
    reason = "this Paddle was built without it, or its library is not found"
    assert (out, err) == ("", f"warning: TensorRT is not used ({reason}); using Paddle's own GPU kernels\n")


def test_where_tensorrt_fails_paddles_own_kernels_go_on(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make, wanted = engine_config, list[bool]()

    def fail(folder: Path, about: Any, device: str, tensorrt: bool) -> Any:
        wanted.append(tensorrt)
        if tensorrt:
            raise RuntimeError("first line\n\nno engine could be built")
        return make(folder, about, "cpu", False)

    monkeypatch.setattr(r3d_fast.export.inference_engine, "tensorrt_version", lambda: (8, 6, 1))
    monkeypatch.setattr(r3d_fast.export.inference_engine, "engine_config", fail)
    engine = OnGpu(exported)
    assert wanted == [True, False]
    assert not engine.tensorrt
    assert engine(clips(2))[0].shape == (2, 5)
    warning = "warning: TensorRT is not used (no engine could be built); using Paddle's own GPU kernels\n"
    assert capfd.readouterr() == ("", warning)


def test_tensorrt_is_given_no_more_clips_than_it_planned_for(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = InferenceEngine(exported)(clips(70))
    engine = InferenceEngine(exported)
    sizes = list[int]()
    run_piece = engine._run_piece

    def counted(values: Any) -> Any:
        sizes.append(len(values))
        return run_piece(values)

    monkeypatch.setattr(engine, "tensorrt", True)
    monkeypatch.setattr(engine, "_run_piece", counted)
    for mine, yours in zip(engine(clips(70)), expected, strict=True):
        np.testing.assert_allclose(mine, yours, atol=1e-5)
    assert sizes == [32, 32, 6]


def test_out_of_memory_says_which_batch_fits(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = InferenceEngine(exported)
    run = engine._run

    def limited(values: Any) -> Any:
        if len(values) > 2:
            raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 1.5GB")
        return run(values)

    monkeypatch.setattr(engine, "_run", limited)
    with pytest.raises(EnvironmentProblem, match=r"a batch of 8 clips does not fit .* a batch of 2 fits"):
        engine(clips(8))

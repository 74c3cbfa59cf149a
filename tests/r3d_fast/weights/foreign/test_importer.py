"""Other people's weights become a file that predicts, evaluates and is trained on at once; bad files change nothing."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from families import drawn, shapes
from untrained import write_changed

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import CheckpointError
from r3d_fast.evaluation.evaluate import evaluate
from r3d_fast.models.architectures import build_model
from r3d_fast.weights.foreign import importer
from r3d_fast.weights.foreign.class_names import read_class_names
from r3d_fast.weights.foreign.importer import import_weights
from r3d_fast.weights.normalisation import NORMALISATIONS
from r3d_fast.weights.stored_model import restore
from r3d_fast.weights.tensor_reader import read_tensors

paddle = import_paddle()
CLASSES = 8


@pytest.fixture(scope="module")
def network() -> Any:
    paddle.seed(0)
    model = build_model("r3d18_reference", num_classes=CLASSES, width=4)
    model.eval()
    return model


@pytest.fixture
def file(network: Any, tmp_path: Path) -> Path:
    """What paddle.save writes of a reference model, four channels wide."""
    path = tmp_path / "model.pdparams"
    paddle.save(network.state_dict(), str(path))
    return path


@pytest.fixture
def names(index: VideoIndex, tmp_path: Path) -> Path:
    path = tmp_path / "classInd.txt"
    path.write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(index.classes)), encoding="utf-8")
    return path


def test_a_reference_file_computes_what_it_computed(network: Any, file: Path, tmp_path: Path) -> None:
    imported = import_weights(file, tmp_path / "w.safetensors")
    restored = restore(tmp_path / "w.safetensors")
    clips = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 16, 112, 112)).astype(np.float32))
    np.testing.assert_array_equal(restored.model(clips).numpy(), network(clips).numpy())
    assert restored.config == imported.config.in_data_format("NCDHW")
    assert (restored.config.model.name, restored.config.model.width) == ("r3d18_reference", 4)
    assert (restored.config.clip.sampling, restored.config.clip.num_frames) == ("segments", 16)
    scale = {key: getattr(restored.config.augment, key) for key in ("value_max", "mean", "std")}
    assert scale == NORMALISATIONS["imagenet"]
    assert restored.classes == tuple(f"class {i}" for i in range(CLASSES))
    assert imported.parameters == sum(int(p.size) for p in network.parameters() if not p.stop_gradient)
    source = json.loads(read_tensors(tmp_path / "w.safetensors")[1]["r3d_fast"])["source"]
    assert source["file"] == "model.pdparams"
    assert len(source["sha256"]) == 64


def test_an_imported_file_predicts_evaluates_and_is_trained_on(
    index: VideoIndex, file: Path, names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    assert run_cli(cli, ["import-weights", str(file), "-o", str(out), "--classes", str(names)], "r3d-fast") == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        f"{out}: r3d18_reference, shortcut B, 136,252 parameters, out of {file}",
        "stem     4 channels, a kernel of 7 frames",
        "classes  8, named",
        "pixels   imagenet (that of justld/3D-ResNets_paddle, by the names of the tensors; --normalize takes another): "
        "value_max 1, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
        "clips    16 segments, 1 a video",
        f"predict: r3d-fast predict {out} VIDEO...",
        f"train:   r3d-fast train -c CFG -o init.weights={out}",
    ]
    video = str(index.root / index[0].path)
    assert run_cli(cli, ["predict", str(out), video], "r3d-fast") == 0
    assert any(name in capsys.readouterr().out for name in index.classes)
    options = tiny.options(tiny.overrides(index, "model.name=r3d18_reference", "model.width=4"))
    assert run_cli(cli, ["eval", "-c", "demo", "--weights", str(out), *options], "r3d-fast") == 0
    assert "evaluated 16 of 16 videos" in capsys.readouterr().out
    quick = tiny.options(["train.epochs=1", "schedule.warmup_epochs=0", f"init.weights={out}"])
    train = ["train", "-c", "demo", *options, *quick]
    assert run_cli(cli, [*train, "--run", str(tmp_path / "run")], "r3d-fast") == 0
    assert f"starting from {out} (r3d18_reference, 8 classes)" in capsys.readouterr().err


def test_evaluation_scales_pixels_as_the_weights_are_used_to(
    index: VideoIndex, file: Path, names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    import_weights(file, out, classes=names, normalize="hara")
    losses = []
    for options in (
        (),
        ("augment.value_max=255", "augment.mean=[114.7748, 107.7354, 99.4750]", "augment.std=[1, 1, 1]"),
    ):
        config = tiny.tiny_config(index, "model.name=r3d18_reference", *options)
        losses.append(evaluate(out, config)[0].video["loss"])
        warned = (
            "trained on pixels with value_max 255, mean [114.7748, 107.7354, 99.475], std [1.0, 1.0, 1.0]; the eval"
        )
        assert (warned in capsys.readouterr().err) == (not options)
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"normalize": "kinetics"}, NORMALISATIONS["kinetics"]),
        ({"normalize": "hara", "std": (58.0, 57.0, 57.5)}, {**NORMALISATIONS["hara"], "std": (58.0, 57.0, 57.5)}),
        (
            {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "value_max": 255},
            {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "value_max": 255},
        ),
    ],
)
def test_the_scale_of_pixels_travels_with_the_weights(
    file: Path, tmp_path: Path, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    imported = import_weights(file, tmp_path / "w.safetensors", num_frames=64, **options)
    augment = restore(tmp_path / "w.safetensors").config.augment
    assert {key: getattr(augment, key) for key in expected} == expected
    assert "as asked for" in imported.scale.reason
    assert imported.config.clip.num_frames == 64


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_floats_become_float32(network: Any, tmp_path: Path, dtype: str) -> None:
    state = {name: tensor.astype(dtype) for name, tensor in network.state_dict().items()}
    paddle.save(state, str(tmp_path / "m.pdparams"))
    import_weights(tmp_path / "m.pdparams", tmp_path / "w.safetensors")
    for name, array in read_tensors(tmp_path / "w.safetensors")[0].items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, network.state_dict()[name].numpy(), rtol=0.01, atol=1e-3)


def test_a_state_dict_inside_a_checkpoint_is_found(network: Any, tmp_path: Path) -> None:
    paddle.save({"epoch": 3, "state_dict": network.state_dict()}, str(tmp_path / "m.pdparams"))
    import_weights(tmp_path / "m.pdparams", tmp_path / "w.safetensors")
    for name, array in read_tensors(tmp_path / "w.safetensors")[0].items():
        np.testing.assert_array_equal(array, network.state_dict()[name].numpy())


def arrays_of(network: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def without(state: dict[str, Any]) -> None:
    del state["backbone.layer2.0.block.2.weight"]


def with_another(state: dict[str, Any]) -> None:
    state["aux_head.weight"] = np.zeros(3, np.float32)


def of_another_shape(state: dict[str, Any]) -> None:
    state["head.fc.weight"] = np.zeros((16, CLASSES), np.float32)


def with_nan(state: dict[str, Any]) -> None:
    state["backbone.stem.0.bn.weight"] = np.array([1, np.nan, 1, 1], np.float32)
    state["head.fc.bias"] = np.full(CLASSES, np.inf, np.float32)


def with_text(state: dict[str, Any]) -> None:
    state["epoch"] = 3


def of_another_network(state: dict[str, Any]) -> None:
    state.clear()
    state["features.0.weight"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "does not fit the model: missing backbone.layer2.0.block.2.weight"),
        (with_another, "does not fit the model: unexpected aux_head.weight"),
        (of_another_shape, "does not fit the model: head.fc.weight is [16, 8], the model has [32, 8]"),
        (with_nan, "NaN or infinite numbers in backbone.stem.0.bn.weight, head.fc.bias; "),
        (with_text, "'epoch' is of type int; expected a state dict of float tensors only"),
        (of_another_network, "features.0.weight"),
    ],
)
def test_weights_that_do_not_fit_end_with_5_and_leave_what_was_there(
    network: Any, tmp_path: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = arrays_of(network)
    change(state)
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(state, 4))
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"earlier")
    assert run_cli(cli, ["import-weights", str(tmp_path / "m.pdparams"), "-o", str(out)], "r3d-fast") == 5
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert out.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pdparams", "w.safetensors"]


def test_the_command_imports_its_file_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[Path] = []

    def counted(source: Path, *arguments: Any, **options: Any) -> Any:
        sources.append(source)
        return import_weights(source, *arguments, **options)

    monkeypatch.setattr(importer, "import_weights", counted)
    out = tmp_path / "w.safetensors"
    assert run_cli(cli, ["import-weights", str(file), "-o", str(out)], "r3d-fast") == 0
    assert sources == [file]


def test_any_tensor_missing_or_of_a_shape_that_is_none_ends_with_5(tmp_path: Path) -> None:
    """Under the names of the authors' files as under ours."""
    ours = arrays_of(build_model("r3d18_reference", num_classes=3, width=4))
    theirs = drawn(shapes("r3d10", classes=3, width=16))
    bottlenecks = drawn(shapes("resnext50", classes=3, width=16))
    for state in (ours, theirs, bottlenecks, drawn(shapes("densenet121", classes=3, width=8))):
        names = sorted({name for name in state if not re.search(r"[23]\.[2-9]|layer[2-9]\.[2-9]|layer1\d", name)})
        for name in names[:: max(1, len(names) // 4)]:
            for value in (None, np.zeros((), np.float32), np.zeros((0, 3), np.float32), np.ones((1, 3, 7, 7, 7))):
                changed = {**state, name: value}
                if value is None:
                    del changed[name]
                (tmp_path / "m.pdparams").write_bytes(pickle.dumps(changed, 4))
                with pytest.raises(CheckpointError) as caught:
                    import_weights(tmp_path / "m.pdparams", tmp_path / "w.safetensors")
                assert str(caught.value).startswith(f"{tmp_path / 'm.pdparams'}: ")


def test_a_small_file_makes_no_huge_network(tmp_path: Path) -> None:
    state = {**drawn(shapes("r3d200", classes=3, width=1)), "conv1.weight": np.zeros((512, 3, 7, 7, 7), np.float32)}
    state["layer1.0.conv2.weight"] = np.zeros((512, 512, 1, 1, 1), np.float32)
    state["layer1.0.conv3.weight"] = np.zeros((2048, 1, 1, 1, 1), np.float32)
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(state, 4))
    with pytest.raises(CheckpointError, match="too few for r3d200 of 512 channels"):
        import_weights(tmp_path / "m.pdparams", tmp_path / "w.safetensors")


class Call:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_hostile_or_cut_file_ends_with_5(network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {**arrays_of(network), "zz": Call(f"touch {tmp_path / 'ran'}")}
    (tmp_path / "hostile.pdparams").write_bytes(pickle.dumps(hostile, 4))
    (tmp_path / "cut.pdparams").write_bytes(pickle.dumps(arrays_of(network), 4)[:5000])
    for name, said in (("hostile", "refused, nothing of it was run: it holds posix.system"), ("cut", "not a whole")):
        args = ["import-weights", str(tmp_path / f"{name}.pdparams"), "-o", str(tmp_path / "w.safetensors")]
        assert run_cli(cli, args, "r3d-fast") == 5
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pdparams", "hostile.pdparams"]


def test_another_model_or_a_wrong_number_of_names_is_refused(file: Path, names: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*unexpected"):
        import_weights(file, out, model="r3d18")
    with pytest.raises(UsageError, match=r"model\.name 'r3d81' is unknown"):
        import_weights(file, out, model="r3d81")
    for option, said in (({"no_max_pool": True}, "max_pool False"), ({"conv1_t_stride": 2}, "conv1_t_stride 2")):
        with pytest.raises(UsageError, match=f"{said}: r3d18_reference has the stem of the reference run; expected "):
            import_weights(file, out, **option)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="conv1_t_stride 3: Input should be 1 or 2"):
        import_weights(file, out, conv1_t_stride=3)
    names.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(
        UsageError, match=f"--classes {names}: 2 class names, but {file} has 8 classes; expected as many"
    ):
        import_weights(file, out, classes=names)


def test_what_is_neither_of_the_two_formats_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not weights at all", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"notes\.txt: neither a \.pth nor a \.pdparams"):
        import_weights(tmp_path / "notes.txt", tmp_path / "w.safetensors")


def test_places_that_are_none_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "manifest.json").touch()
    for out, said in (
        (tmp_path / "w.pth", "expected a name that ends in .safetensors"),
        (tmp_path / "absent" / "w.safetensors", "does not exist"),
        (tmp_path / "best" / "model.safetensors", "belongs to a checkpoint of a run"),
    ):
        with pytest.raises(UsageError, match=said):
            import_weights(file, out)
    with pytest.raises(UsageError, match="no such file"):
        import_weights(tmp_path / "absent.pth", tmp_path / "w.safetensors")
    shutil.copy(file, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="is what import-weights writes"):
        import_weights(tmp_path / "w.safetensors", tmp_path / "v.safetensors")
    for option in ({"std": (0.0, 1.0, 1.0)}, {"value_max": 2}, {"mean": (float("nan"), 0.0, 0.0)}):
        with pytest.raises(UsageError, match="expected --value-max 1 or 255, finite --mean, --std above 0"):
            import_weights(file, tmp_path / "v.safetensors", **option)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "choices"), [("r3d18", {}), ("r3d34", {"conv1_t_size": 3}), ("r2plus1d18", {})])
def test_names_of_this_project_tell_shortcut_and_stem_of_the_model_that_is_said(
    tmp_path: Path, name: str, choices: dict[str, Any]
) -> None:
    for shortcut in "AB":
        model = build_model(name, num_classes=3, width=4, shortcut=shortcut, **choices)
        (tmp_path / "m.pdparams").write_bytes(pickle.dumps(arrays_of(model), 4))
        imported = import_weights(tmp_path / "m.pdparams", tmp_path / "w.safetensors", model=name)
        spec = imported.config.model
        assert (spec.shortcut, spec.width, spec.conv1_t_size) == (shortcut, 4, choices.get("conv1_t_size", 7))


def test_weights_with_nan_predict_nothing(file: Path, tmp_path: Path, index: VideoIndex) -> None:
    import_weights(file, tmp_path / "w.safetensors")
    weights, about = read_tensors(tmp_path / "w.safetensors")
    broken = {**weights, "head.fc.bias": np.full(CLASSES, np.nan, np.float32)}
    write_changed(tmp_path / "w.safetensors", broken, about)
    with pytest.raises(CheckpointError, match=r"NaN or infinite numbers in head\.fc\.bias"):
        restore(tmp_path / "w.safetensors")


def test_a_flipped_byte_of_an_imported_file_is_noticed(file: Path, tmp_path: Path) -> None:
    import_weights(file, tmp_path / "w.safetensors")
    content = bytearray((tmp_path / "w.safetensors").read_bytes())
    content[-1000] ^= 1
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: the SHA-256 of its tensors is not the one"):
        restore(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "run\njump high\n\n", ("run", "jump high")),
        ("classInd.txt", "2 Archery\r\n1 ApplyEyeMakeup\r\n", ("ApplyEyeMakeup", "Archery")),
        ("k.csv", "id,name\n0,abseiling\n1,air drumming\n", ("abseiling", "air drumming")),
        ("k.csv", 'name,id\n"one, two",1\nthree,0\n', ("three", "one, two")),
        ("k.csv", '0,"one, two"\n1,three\n', ("one, two", "three")),
        ("k.csv", "\nlabel,id\n# sorted\none,0\ntwo,1\n", ("one", "two")),
        ("hash.txt", "#clap\nrun\n", ("#clap", "run")),
        ("bom.txt", "\ufeffé\n", ("é",)),
    ],
)
def test_class_names_are_read_in_every_common_form(
    tmp_path: Path, name: str, text: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no class names in it"),
        ("run\nrun\n", r"names\.txt:2: 'run' repeats a class; expected each once"),
        ("1 a\n3 b\n", "2 classes, numbered 1 to 3"),
        ("2 a\n3 b\n", "expected each number once, from 0 or 1 on"),
    ],
)
def test_class_names_that_are_none_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        read_class_names(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        read_class_names(tmp_path / "names.txt")


@pytest.mark.parametrize(("name", "start"), [("w.pdparams", b"\x80\x04"), ("w.pth", b"PK\x03\x04")])
def test_a_file_that_no_memory_holds_is_refused_before_it_is_read(tmp_path: Path, name: str, start: bytes) -> None:
    with (tmp_path / name).open("wb") as stream:
        stream.write(start)
        stream.truncate(2**42)  # zeros that take no room
    with pytest.raises(EnvironmentProblem, match=rf"{name}: {2**42} bytes of tensors, \d+ bytes of memory are free"):
        import_weights(tmp_path / name, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()

"""Which precision a device gets, what runs in it, and how the loss is scaled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from claimed import claim_gpu, in_force, is_half, precisions_here

from pipelines.errors import EnvironmentProblem
from r3d_fast.backend.precision import (
    WHITE_LIST,
    Precision,
    available_precision,
    choose_data_format,
    choose_precision,
    float32_parameters,
    float32_weights,
)
from r3d_fast.cli import cli as command_line
from r3d_fast.cli import run_cli
from r3d_fast.config.config import Config, load_config
from r3d_fast.learning.loss_scale import LossScaler
from r3d_fast.models.architectures import build_model

HALVES = [Precision(name, level) for name in ("fp16", "bf16") for level in ("O1", "O2")]  # type: ignore[arg-type]


def small(**options: Any) -> Any:
    paddle.seed(0)
    return build_model("r3d18_reference", **{"num_classes": 4, "width": 4, **options})


def momentum(model: Any) -> Any:
    return paddle.optimizer.Momentum(
        0.01, 0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-3)
    )


@pytest.mark.parametrize(
    ("wanted", "capability", "name"),
    [
        ("auto", (6, 1), "fp32"),
        ("auto", (7, 0), "fp16"),  # V100
        ("auto", (7, 5), "fp16"),  # T4
        ("auto", (8, 0), "bf16"),  # A100
        ("auto", (8, 9), "bf16"),
        ("auto", (9, 0), "bf16"),  # H100
        ("auto", (12, 0), "bf16"),
        ("fp32", (9, 0), "fp32"),
        ("fp32", (6, 1), "fp32"),
        ("fp16", (7, 0), "fp16"),
        ("fp16", (9, 0), "fp16"),
        ("bf16", (8, 0), "bf16"),
    ],
)
def test_a_gpu_gets_what_its_compute_capability_has(wanted: Any, capability: tuple[int, int], name: str) -> None:
    assert choose_precision(wanted, "gpu", "O2", capability=capability) == Precision(name, "O2")  # type: ignore[arg-type]


def test_the_cpu_gets_fp32() -> None:
    assert choose_precision("auto", "cpu") == choose_precision("fp32", "cpu") == Precision("fp32", "O1")


@pytest.mark.parametrize(
    ("wanted", "capability", "said"),
    [
        (
            "bf16",
            (7, 5),
            "train.precision bf16: this GPU has compute capability 7.5, bf16 needs 8.0; use -o train.precision=fp16",
        ),
        (
            "bf16",
            (6, 1),
            "train.precision bf16: this GPU has compute capability 6.1, bf16 needs 8.0; use -o train.precision=fp32",
        ),
        (
            "fp16",
            (6, 1),
            "train.precision fp16: this GPU has compute capability 6.1, fp16 needs 7.0; use -o train.precision=fp32",
        ),
    ],
)
def test_a_gpu_that_is_too_old_is_told_so(wanted: Any, capability: tuple[int, int], said: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        choose_precision(wanted, "gpu", capability=capability)
    assert (str(caught.value), caught.value.exit_code) == (said, 4)


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_half_precision_on_the_cpu_exits_4_in_one_line(
    wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", f"train.precision={wanted}", "-o", "train.device=cpu", "-o", f"data.root={tmp_path}"]
    code = run_cli(command_line, ["train", "-c", "demo", "--run", str(tmp_path / "run"), *options], "r3d-fast")
    assert code == 4
    *_, said = capsys.readouterr().err.splitlines()  # after the line that says what is about to begin
    assert said == (
        f"r3d-fast: train.precision {wanted}: on the CPU Paddle has neither autocast nor 3D convolutions in half "
        "precision; use -o train.precision=auto (fp32 here), or a GPU"
    )
    assert not (tmp_path / "run").exists()


def test_what_the_cpu_lacks_gives_way_where_only_weights_are_used() -> None:
    assert available_precision("bf16", "cpu", "O2") == Precision("fp32", "O2")
    assert available_precision("auto", "cpu", "O1") == Precision("fp32", "O1")


def test_clips_come_in_a_type_that_dali_has() -> None:
    assert [Precision(name).clip_dtype for name in ("fp32", "fp16", "bf16")] == ["float32", "float16", "float16"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "precision", "device", "data_format"),
    [
        ("auto", Precision(), "cpu", "NCDHW"),
        ("auto", Precision(), "gpu", "NCDHW"),
        ("auto", Precision("fp16"), "gpu", "NDHWC"),
        ("auto", Precision("bf16", "O2"), "gpu", "NDHWC"),
        ("NCDHW", Precision("fp16"), "gpu", "NCDHW"),
        ("NDHWC", Precision(), "cpu", "NDHWC"),
    ],
)
def test_half_precision_on_a_gpu_takes_channels_last(
    wanted: str, precision: Precision, device: str, data_format: str
) -> None:
    config = load_config("demo", [f"model.data_format={wanted}"])
    config = config.in_data_format(choose_data_format(config.model.data_format, precision, device))
    assert config.model.data_format == data_format
    assert config.augment.layout == {"NCDHW": "NCTHW", "NDHWC": "NTHWC"}[data_format]


def test_only_the_data_format_is_settled() -> None:
    settled = Config().in_data_format(choose_data_format("auto", Precision("fp16"), "gpu"))
    assert settled.model.model_copy(update={"data_format": "auto"}) == Config().model
    assert settled.augment.model_copy(update={"layout": "NCTHW"}) == Config().augment
    assert settled.train == Config().train


@pytest.mark.parametrize("precision", HALVES, ids=str)
def test_autocast_puts_3d_convolutions_on_the_list_in_force(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_gpu(monkeypatch)
    with paddle.amp.auto_cast(level=precision.level, dtype=precision.dtype):
        assert "conv3d" not in in_force()[2]  # the trap: Paddle's own list
    with precision.autocast():
        level, dtype, white, black = in_force()
    assert (level, dtype) == (precision.level, precision.dtype)
    assert {"conv3d", "elementwise_add", "matmul_v2"} <= white
    assert "batch_norm" not in white
    assert not white & black
    if precision.level == "O1":
        assert {"softmax_with_cross_entropy", "reduce_mean", "mean"} <= black
    assert in_force() == ("O0", "float32", set(), set())


def test_the_white_list_has_the_names_by_which_paddle_asks() -> None:
    """Paddle's own log of what its autocast decides on: the list would have no effect under any other name."""
    code = (
        "import sys; sys.path[:] = " + repr(sys.path) + "\n"
        "from r3d_fast.backend.paddle import import_paddle; paddle = import_paddle()\n"
        "import pytest, claimed\n"
        "from r3d_fast.models.architectures import build_model\n"
        "from r3d_fast.backend.precision import Precision\n"
        "claimed.claim_gpu(pytest.MonkeyPatch())\n"
        "models = [build_model(name, num_classes=4, width=4) for name in ('r3d18_reference', 'r3d34')]\n"
        "for model in models:\n"
        "    Precision('fp16').forward(model, paddle.randn([2, 3, 4, 16, 16]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "GLOG_v": "6", "GLOG_minloglevel": "0"}, capture_output=True, text=True, errors="replace",
        check=True,
    )  # fmt: skip
    asked = set(re.findall(r"AMP GetAmpDestDtype:? op\((\w+)\)", done.stderr))
    assert asked >= WHITE_LIST | {"matmul_v2", "reduce_mean", "batch_norm"}
    # What else a model is made of takes the type that it is given.
    rest = asked - WHITE_LIST - {"matmul_v2", "reduce_mean", "batch_norm"}
    assert rest <= {"relu", "pool3d", "reshape", "reshape2", "concat", "cast", "scale", "dropout", "shape64", "shape"}


def test_fp32_has_no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_gpu(monkeypatch)
    with Precision().autocast():
        assert in_force() == ("O0", "float32", set(), set())


@pytest.mark.parametrize("precision", HALVES, ids=str)
def test_logits_are_float32_whatever_the_model_gives(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_gpu(monkeypatch)
    seen = []

    def model(clips: Any) -> Any:
        seen.append(clips)
        return clips.reshape([2, 3])

    logits = precision.forward(model, paddle.ones([2, 3, 1, 1, 1]))
    assert is_half(seen[0])
    assert logits.dtype == paddle.float32


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_o2_casts_all_layers_but_batch_norm(name: Any) -> None:
    model = small()
    before = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    optimizer = momentum(model)
    decorated, same = Precision(name, "O2").decorate(model, optimizer)
    assert (decorated, same) == (model, optimizer)
    layers = {key: layer for key, layer in model.named_sublayers() if layer.parameters(include_sublayers=False)}
    assert {type(layer).__name__ for layer in layers.values()} == {"Conv3D", "BatchNorm3D", "Linear"}
    for key, layer in layers.items():
        for parameter in layer.parameters(include_sublayers=False):
            assert is_half(parameter) == (type(layer).__name__ != "BatchNorm3D"), key
            assert not is_half(parameter) or not parameter.stop_gradient
    assert all(parameter.dtype == paddle.float32 for parameter in optimizer._parameter_list)
    weights = {key: tensor.numpy() for key, tensor in float32_weights(model).items()}
    assert weights.keys() == before.keys()
    assert list(float32_parameters(model)) == [key for key, _ in small().named_parameters()]
    for key, array in weights.items():
        assert array.dtype == np.float32, key
        np.testing.assert_array_equal(array, before[key], err_msg=key)
    half = model.state_dict()["head.fc.weight"].astype("float32").numpy()
    assert 0 < np.abs(half - before["head.fc.weight"]).max() < 0.01


@pytest.mark.parametrize("precision", [Precision("fp32", "O2"), Precision("fp16", "O1")], ids=str)
def test_nothing_is_cast_outside_o2(precision: Precision) -> None:
    model = small()
    precision.decorate(model, momentum(model))
    assert not any(is_half(parameter) for parameter in model.parameters())


def test_the_scale_backs_off_at_once_and_grows_after_1000_steps() -> None:
    scaler = LossScaler()
    assert scaler.scale == 2.0**15
    scaler.update(False)
    scaler.update(False)
    assert scaler.scale == 2.0**13
    for _ in range(999):
        scaler.update(True)
    assert scaler.scale == 2.0**13
    scaler.update(True)
    assert scaler.scale == 2.0**14
    for _ in range(999):
        scaler.update(True)
    scaler.update(False)  # the count begins anew
    for _ in range(999):
        scaler.update(True)
    assert scaler.scale == 2.0**13
    for _ in range(11_000):
        scaler.update(True)
    assert scaler.scale == 2.0**24


def test_a_scale_that_can_fall_no_further_has_collapsed() -> None:
    scaler = LossScaler()
    for _ in range(15):
        scaler.update(False)
        assert not scaler.collapsed
    assert scaler.scale == 1.0
    scaler.update(False)
    assert (scaler.scale, scaler.collapsed) == (1.0, True)
    scaler.update(True)
    assert not scaler.collapsed


def test_unscaling_divides_and_finds_what_is_not_finite() -> None:
    scaler = LossScaler()
    gradients = [paddle.to_tensor([2.0**15, 3 * 2.0**15]), paddle.to_tensor([[1.0]])]
    assert scaler.unscale(gradients)
    np.testing.assert_array_equal(gradients[0].numpy(), [1.0, 3.0])
    np.testing.assert_array_equal(gradients[1].numpy(), [[2.0**-15]])
    for value in (np.inf, -np.inf, np.nan):
        assert not scaler.unscale([paddle.ones([3]), paddle.to_tensor([1.0, value])])


def test_a_scaler_that_is_off_scales_nothing_but_finds_what_is_not_finite() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    scaler, gradient, loss = LossScaler(enabled=False), paddle.to_tensor(values), paddle.ones([])
    assert scaler.scale_loss(loss) is loss
    assert scaler.unscale([gradient])
    np.testing.assert_array_equal(gradient.numpy(), values)
    assert not scaler.unscale([paddle.to_tensor([np.inf, 2.0])])
    scaler.update(False)
    assert (scaler.scale, scaler.collapsed, scaler.state_dict()) == (1.0, True, {})
    scaler.update(True)
    assert (scaler.scale, scaler.collapsed) == (1.0, False)


def test_the_scalers_state_comes_back() -> None:
    scaler, again = LossScaler(), LossScaler()
    scaler.update(False)
    for _ in range(700):
        scaler.update(True)
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict() == {"scale": 2.0**14, "good_steps": 700}
    again.load_state_dict({})  # of a run that scaled nothing
    assert again.scale == 2.0**14
    off = LossScaler(enabled=False)
    off.load_state_dict(scaler.state_dict())
    assert off.scale == 1.0


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["r3d18_reference", "r3d34", "preact18", "resnext50", "densenet121", "r2plus1d18"])
@pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
def test_every_convolution_gives_half_precision(on_gpu: str, name: str, data_format: str) -> None:
    for precision in precisions_here():
        paddle.seed(0)
        model = build_model(name, num_classes=4, width=16, data_format=data_format)
        model, _ = precision.decorate(model, momentum(model))
        given: list[str] = []

        def note(layer: Any, inputs: Any, output: Any, given: list[str] = given) -> None:
            given.append(str(output.dtype))

        for layer in model.sublayers():
            if isinstance(layer, paddle.nn.Conv3D):
                layer.register_forward_post_hook(note)
        shape = [2, 3, 8, 56, 56] if data_format == "NCDHW" else [2, 8, 56, 56, 3]
        logits = precision.forward(model, paddle.randn(shape))
        assert len(given) >= 17
        assert set(given) == {f"paddle.{precision.dtype}"}, (precision, given)
        assert logits.dtype == paddle.float32
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters() if not p.stop_gradient)


@pytest.mark.gpu
def test_without_the_white_list_paddle_leaves_convolutions_in_float32(on_gpu: str) -> None:
    conv, clips = paddle.nn.Conv3D(3, 8, 3), paddle.randn([1, 3, 8, 16, 16])
    with paddle.amp.auto_cast(level="O1", dtype="float16"):
        assert conv(clips).dtype == paddle.float32
    with Precision("fp16").autocast():
        assert conv(clips).dtype == paddle.float16


@pytest.mark.gpu
def test_auto_is_what_the_gpu_has(on_gpu: str) -> None:
    major, _ = paddle.device.cuda.get_device_capability()
    expected = "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    assert choose_precision("auto", "gpu").name == expected

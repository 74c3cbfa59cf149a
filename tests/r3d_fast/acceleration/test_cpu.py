from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from programs import clips, optimiser, train

import r3d_fast.acceleration.cpu
from pipelines.machine.cpus import usable_cpus
from r3d_fast.acceleration.cpu import accelerate_training, is_worth_tracing, traced
from r3d_fast.backend.paddle import older_graphs
from r3d_fast.backend.precision import Precision
from r3d_fast.models.architectures import build_model, freeze

REPO = Path(__file__).resolve().parents[3]
MODELS = ("r3d18_reference", "r3d18")
FORMATS = ("NCDHW", "NDHWC")


def small(name: str = "r3d18_reference", **options: Any) -> Any:
    """A model whose biases and batch norms are not what they begin with, as after an epoch."""
    paddle.seed(0)
    model = build_model(name, **{"num_classes": 3, "width": 8, **options})
    for value in model.state_dict().values():
        if value.ndim == 1:
            value.set_value(value + paddle.linspace(-0.1, 0.1, value.shape[0]))
    return model


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_plain_paths(name: str, data_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    plain = small(name, data_format=data_format, dropout=0.5)
    losses, gradients = train(plain, plain)
    model = small(name, data_format=data_format, dropout=0.5)
    forward = accelerate_training(model)
    own_losses, own_gradients = train(model, forward)
    assert "warning" not in capfd.readouterr().err  # else it was the plain path twice
    np.testing.assert_allclose(own_losses, losses, atol=1e-4)
    assert list(own_gradients) == list(gradients)
    whole = np.sqrt(sum((value**2).sum() for value in gradients.values()))
    for key, value in gradients.items():
        # One activation that rounding moves across 0 is 1 % here; an element in the wrong place is 100 %. The true
        # gradient of a bias before a batch norm is 0: what there is, is rounding.
        error = np.sqrt(((own_gradients[key] - value) ** 2).sum())
        assert error < 3e-2 * np.sqrt((value**2).sum()) + 1e-6 * whole, key
    trained, own = plain.state_dict(), model.state_dict()
    assert list(own) == list(trained)
    for key, value in trained.items():
        np.testing.assert_allclose(own[key].numpy(), value.numpy(), atol=1e-4, rtol=1e-4, err_msg=key)


def test_onednn_does_every_convolution_and_nothing_else() -> None:
    model = small()
    forward = accelerate_training(model)
    forward(clips())
    with older_graphs():
        (features,) = forward.graphs.values()  # type: ignore[attr-defined]
        ops = features.graph.forward.concrete_program.main_program.global_block().ops
    wanted = {"use_mkldnn", "use_onednn"}
    by_onednn = [op.type for op in ops if any(op.has_attr(name) and op.attr(name) for name in wanted)]
    assert by_onednn == ["conv3d"] * sum(isinstance(layer, paddle.nn.Conv3D) for layer in model.sublayers())


def test_names_and_tensors_of_the_model_stay() -> None:
    model = small()
    before = dict(model.state_dict())
    forward = accelerate_training(model)
    F.cross_entropy(forward(clips()), paddle.to_tensor([0, 1, 2] * 2)).backward()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)


def test_what_the_first_weights_of_the_graph_draw_is_given_back() -> None:
    model = small()
    paddle.seed(7)
    expected = paddle.normal(shape=[4]).numpy()
    paddle.seed(7)
    accelerate_training(model)(clips())
    np.testing.assert_array_equal(paddle.normal(shape=[4]).numpy(), expected)


def test_weight_decay_reaches_biases_whose_gradient_is_nothing() -> None:
    model = small()
    forward = accelerate_training(model)
    bias = model.backbone.layer1[0].block[1].bias
    before = bias.numpy().copy()
    optimizer = optimiser(model, weight_decay=100.0)
    F.cross_entropy(forward(clips()), paddle.to_tensor([0, 1, 2] * 2)).backward()
    optimizer.step()
    np.testing.assert_allclose(bias.numpy(), before * (1 - 1e-4 * 100.0), atol=1e-6)


def test_a_model_that_does_not_train_is_asked_itself() -> None:
    model = small()
    forward = accelerate_training(model)
    forward(clips())
    model.eval()
    np.testing.assert_array_equal(forward(clips()).numpy(), model(clips()).numpy())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("until", ["layer1", "layer3", "head"])
@pytest.mark.parametrize("kept", ["eval", "train"])
def test_frozen_parts_stay_and_the_others_train_as_on_the_plain_path(
    name: str, until: str, kept: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plain, model = small(name), small(name)
    for one in (plain, model):
        freeze(one, until, statistics=kept)
    weights = {
        key: p.numpy()
        for key, p in model.named_parameters()
        if p.stop_gradient and not key.endswith(("._mean", "._variance"))
    }
    statistics = {key: value.numpy() for key, value in model.state_dict().items() if key.endswith("_mean")}
    losses, gradients = train(plain, plain)
    forward = accelerate_training(model)
    own_losses, own_gradients = train(model, forward)
    assert "warning" not in capfd.readouterr().err
    assert len(forward.graphs) == 1  # type: ignore[attr-defined]
    np.testing.assert_allclose(own_losses, losses, atol=1e-4)
    assert own_gradients.keys() == gradients.keys()
    for key, value in plain.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key].numpy(), value.numpy(), atol=1e-4, rtol=1e-4, err_msg=key)
    stay = {key for key, value in statistics.items() if (model.state_dict()[key].numpy() == value).all()}
    parts = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    frozen = parts[: parts.index(until)] if kept == "eval" else []
    assert all((model.state_dict()[key].numpy() == value).all() for key, value in weights.items())
    assert stay == {key for key in statistics if key.split(".")[1] in frozen}


def test_parts_that_are_frozen_later_get_a_graph_of_their_own() -> None:
    model, plain = small(), small()
    forward = accelerate_training(model)
    for one in (model, plain):
        one.train()
    forward(clips()), plain(clips())
    for one in (model, plain):
        freeze(one, "layer2")
        one.train()
    for seed in (1, 2):
        np.testing.assert_allclose(forward(clips(seed=seed)).numpy(), plain(clips(seed=seed)).numpy(), atol=1e-4)
    assert len(forward.graphs) == 2  # type: ignore[attr-defined]


def test_a_bias_that_trains_before_a_frozen_batch_norm_is_the_models_own_affair() -> None:
    model = small()
    forward = accelerate_training(model)
    model.train()
    model.backbone.layer1[0].block[2].eval()
    np.testing.assert_array_equal(forward(clips()).numpy(), model(clips()).numpy())
    assert not forward.graphs  # type: ignore[attr-defined]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", [*MODELS, "r3d34"])
def test_a_traced_model_gives_the_eager_logits(name: str, data_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = small(name, data_format=data_format, dropout=0.5)
    model.train()
    forward = traced(model)
    got = [forward(clips(data_format, 0, batch, side)) for batch, side in ((4, 32), (1, 32), (5, 48))]
    assert model.training
    model.eval()
    for (batch, side), logits in zip(((4, 32), (1, 32), (5, 48)), got, strict=True):
        with paddle.no_grad():
            expected = model(clips(data_format, 0, batch, side)).numpy()
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4)
    assert "warning" not in capfd.readouterr().err


def test_a_traced_model_is_compiled_again_only_when_its_weights_changed() -> None:
    model = small()
    model.eval()
    forward = traced(model)
    first = forward(clips()).numpy()
    graphs = r3d_fast.acceleration.cpu._graphs[model].forwards
    traced(model)(clips())
    assert r3d_fast.acceleration.cpu._graphs[model].forwards is graphs
    assert len(graphs) == 1
    model.head.fc.bias.set_value(model.head.fc.bias + 1.0)
    np.testing.assert_allclose(traced(model)(clips()).numpy(), first + 1.0, atol=1e-4)
    np.testing.assert_array_equal(forward(clips()).numpy(), first)  # its weights as they were


def test_evaluating_leaves_the_number_of_threads() -> None:
    openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so"))
    threads = openmp.omp_get_max_threads()
    model = small()
    traced(model)(clips())
    assert openmp.omp_get_max_threads() == threads == int(os.environ["OMP_NUM_THREADS"])


def test_where_paddle_can_not_do_it_the_model_goes_on_after_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("first line\n\nno such graph")

    monkeypatch.setattr(r3d_fast.acceleration.cpu, "_training_graph", fail)
    monkeypatch.setattr(r3d_fast.acceleration.cpu, "_has_to_copy_weights", lambda: False)
    monkeypatch.setattr(r3d_fast.acceleration.cpu, "_compile", fail)
    plain, model = small(), small()
    assert train(model, accelerate_training(model))[0] == train(plain, plain)[0]
    warning = "warning: this Paddle trains without its faster CPU path (no such graph)\n"
    assert capsys.readouterr().err == warning
    forward = traced(model)
    got = [forward(clips()).numpy() for _ in range(2)]
    assert capsys.readouterr().err == warning.replace("trains", "evaluates")
    model.eval()
    np.testing.assert_array_equal(got[1], model(clips()).numpy())


def fresh(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a new process says whose environment has only these of the variables that matter here."""
    ours = ("OMP_", "KMP_", "MKL_", "GLOG_", "MALLOC_", "GLIBC_", "PADDLE_", "R3D_FAST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment = {**kept, **variables, "PYTHONPATH": str(REPO)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )


SHOW = (
    "import os; from r3d_fast.backend.paddle import import_paddle; import_paddle()\n"
    "print(*(os.environ.get(name) for name in ('OMP_NUM_THREADS', 'KMP_BLOCKTIME', 'GLOG_minloglevel')))"
)


def test_paddle_computes_on_every_usable_cpu_and_says_nothing_of_it() -> None:
    done = fresh(SHOW)
    assert done.stdout.split() == [str(usable_cpus()), "0", "2"]
    assert "OMP_NUM_THREADS" not in done.stderr
    assert fresh(SHOW, PADDLE_LOCAL_SIZE="1000").stdout.split()[0] == "1"


def test_a_child_of_a_process_that_chose_for_itself_chooses_anew() -> None:
    code = (
        "import subprocess, sys; from r3d_fast.backend.paddle import import_paddle; import_paddle()\n"
        "import os; os.environ['PADDLE_LOCAL_SIZE'] = '1000'\n"
        f"print(subprocess.run([sys.executable, '-c', {SHOW!r}], capture_output=True, text=True, check=True).stdout)"
    )
    assert fresh(code).stdout.split()[0] == "1"
    assert fresh(code, OMP_NUM_THREADS="3").stdout.split()[0] == "3"


def test_what_the_user_set_stays() -> None:
    own = {"OMP_NUM_THREADS": "3", "KMP_BLOCKTIME": "5", "GLOG_minloglevel": "0"}
    done = fresh(SHOW, **own)
    assert done.stdout.split() == list(own.values())
    assert "OMP_NUM_THREADS set to 3" in done.stderr  # Paddle's advice is for those who set it
    first = "import paddle\n" + SHOW
    assert fresh(first).stdout.split()[0] == "1"  # as Paddle set it: too late to know whose it is


@pytest.mark.parametrize(("variables", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False)])
def test_freed_memory_is_kept_unless_the_user_set_malloc_up(variables: dict[str, str], kept: bool) -> None:
    code = (
        "import ctypes\n"
        "from r3d_fast.acceleration.cpu import _keep_freed_memory; _keep_freed_memory()\n"
        "libc, size = ctypes.CDLL(None), ctypes.c_size_t(2**27)\n"
        "libc.malloc.restype = ctypes.c_void_p\n"
        "def allocate(): return ctypes.c_void_p(libc.malloc(size))\n"
        "block = allocate()\n"
        "libc.memset(block, 0x55, size)\n"
        "libc.free(block)\n"
        "block = allocate()\n"
        "print(ctypes.string_at(block.value + 2**26, 1)[0])"
    )
    # What the kernel gives is 0.
    assert int(fresh(code, **variables).stdout) == (0x55 if kept else 0)


def test_a_graph_pays_for_some_clips_in_float32_on_the_cpu() -> None:
    assert is_worth_tracing(16, "cpu", Precision())
    assert not is_worth_tracing(15, "cpu", Precision())
    assert not is_worth_tracing(1000, "gpu", Precision())
    assert not is_worth_tracing(1000, "cpu", Precision("fp16"))

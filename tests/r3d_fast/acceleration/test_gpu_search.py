"""The search for algorithms of cuDNN, the mode of its batch norm, and that a run on a GPU asks for both."""

from __future__ import annotations

import os
from typing import Any

import paddle
import pytest
from from_config import a_learner

import r3d_fast.acceleration.gpu
from r3d_fast.acceleration.gpu import choose_batch_norm, search_algorithms
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import load_config
from r3d_fast.learning.learner import Learner, model_to_train

SEARCH, LIMIT, DETERMINISTIC = (
    f"FLAGS_{name}" for name in ("cudnn_exhaustive_search", "conv_workspace_size_limit", "cudnn_deterministic")
)


PERSISTENT = "FLAGS_cudnn_batchnorm_spatial_persistent"


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The flags of a build of Paddle for GPUs, on one; what is set shows here."""
    now: dict[str, Any] = {SEARCH: False, LIMIT: 512, DETERMINISTIC: False}
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "get_flags", lambda names: {name: now[name] for name in names})
    monkeypatch.setattr(paddle, "set_flags", now.update)
    for name in now:
        monkeypatch.delenv(name, raising=False)
    return now


def test_algorithms_are_searched_on_a_gpu(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle, "get_device", lambda: "cpu")
    search_algorithms()
    assert flags == {SEARCH: False, LIMIT: 512, DETERMINISTIC: False}
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    search_algorithms()
    assert flags == {SEARCH: True, LIMIT: 1000, DETERMINISTIC: False}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({LIMIT: 4096}, {SEARCH: True, LIMIT: 4096}),
        ({LIMIT: -1}, {SEARCH: True, LIMIT: -1}),
        ({DETERMINISTIC: True}, {SEARCH: False, LIMIT: 512}),
    ],
)
def test_neither_more_space_nor_determinism_is_taken_away(
    before: dict[str, Any], after: dict[str, Any], flags: dict[str, Any]
) -> None:
    flags.update(before)
    search_algorithms()
    assert {name: flags[name] for name in after} == after


@pytest.mark.parametrize(("name", "value", "other"), [(SEARCH, "0", LIMIT), (LIMIT, "256", SEARCH)])
def test_a_flag_that_the_user_set_stays(
    name: str, value: str, other: str, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    flags[name] = before = int(value)
    search_algorithms()
    assert flags[name] == before
    assert flags[other] == {SEARCH: True, LIMIT: 1000}[other]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("data_format", ["NCDHW", "NDHWC"])
@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_batch_norm_computes_channels_last_in_fp16_only(
    name: Any, data_format: str, level: Any, before: bool, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PERSISTENT, raising=False)
    flags[PERSISTENT] = before  # an earlier run of this process may have set it
    choose_batch_norm(Precision(name, level), data_format)
    assert flags[PERSISTENT] is (name == "fp16" and data_format == "NDHWC")


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_mode_of_batch_norm_that_the_user_set_stays(
    value: str, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PERSISTENT, value)
    flags[PERSISTENT] = value == "1"
    for data_format in ("NDHWC", "NCDHW"):
        choose_batch_norm(Precision("fp16"), data_format)
        assert flags[PERSISTENT] is (value == "1")


def test_on_a_cpu_batch_norm_has_no_such_mode(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle, "get_device", lambda: "cpu")
    choose_batch_norm(Precision("fp16"), "NDHWC")
    assert PERSISTENT not in flags


@pytest.mark.skipif(not paddle.is_compiled_with_cuda(), reason="this Paddle has no such flag: it is a CPU build")
def test_a_gpu_build_of_paddle_takes_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.delenv(PERSISTENT, raising=False)
    before = paddle.get_flags([PERSISTENT])
    try:
        for data_format in ("NDHWC", "NCDHW"):
            choose_batch_norm(Precision("fp16"), data_format)
            assert paddle.get_flags([PERSISTENT]) == {PERSISTENT: data_format == "NDHWC"}
    finally:
        paddle.set_flags(before)


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has the flags: it is a GPU build")
def test_a_build_without_the_flags_goes_on_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=SEARCH):
        paddle.get_flags([SEARCH])
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    search_algorithms()
    choose_batch_norm(Precision("fp16"), "NDHWC")


@pytest.mark.parametrize("padded", [False, True], ids=["3 channels", "padded"])
@pytest.mark.parametrize("precision", [Precision(), Precision("bf16", "O1"), Precision("fp16", "O2")], ids=str)
def test_the_learner_takes_both_on_a_gpu(precision: Precision, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def accelerate(model: Any, *, padded_stem: bool) -> Any:
        called.append((model, padded_stem))
        return model

    monkeypatch.setattr(r3d_fast.acceleration.gpu, "search_algorithms", lambda: called.append("search"))
    monkeypatch.setattr(r3d_fast.acceleration.gpu, "choose_batch_norm", lambda *asked: called.append(asked))
    monkeypatch.setattr(r3d_fast.acceleration.gpu, "accelerate_training", accelerate)
    config = load_config("demo", ["model.width=4", "model.data_format=NCDHW"])
    model = model_to_train(config.model, 4, 0, config.init)
    learner = Learner(model, config.optimizer, config.train, precision, "gpu", padded_stem=padded)
    assert called == ["search", (precision, "NCDHW"), (learner.model, padded)]
    assert learner.state()["layout"] == {"data_format": "NCDHW", "padded_stem": padded}
    a_learner(config, 4, Precision(), "cpu")
    assert len(called) == 3


@pytest.mark.gpu
def test_on_a_gpu_the_search_is_on(on_gpu: str) -> None:
    before = paddle.get_flags([SEARCH, LIMIT, PERSISTENT])
    try:
        search_algorithms()
        now = paddle.get_flags([SEARCH, LIMIT])
        assert SEARCH in os.environ or now[SEARCH]
        assert LIMIT in os.environ or now[LIMIT] >= 1000
        conv, clips = paddle.nn.Conv3D(3, 8, 3), paddle.randn([1, 3, 8, 16, 16])
        conv(clips).sum().backward()
        assert conv.weight.grad is not None
    finally:
        paddle.set_flags(before)

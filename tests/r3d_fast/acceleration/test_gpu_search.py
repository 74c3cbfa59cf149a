"""When cuDNN searches its algorithms, and that a run on a GPU has it do so."""

from __future__ import annotations

import os
from typing import Any

import paddle
import pytest
from from_config import a_learner

import r3d_fast.acceleration.gpu
from r3d_fast.acceleration.gpu import search_algorithms
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import load_config

SEARCH, LIMIT, DETERMINISTIC = (
    f"FLAGS_{name}" for name in ("cudnn_exhaustive_search", "conv_workspace_size_limit", "cudnn_deterministic")
)


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


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has the flags: it is a GPU build")
def test_a_build_without_the_flags_goes_on_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=SEARCH):
        paddle.get_flags([SEARCH])
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    search_algorithms()


@pytest.mark.parametrize("precision", [Precision(), Precision("bf16", "O1"), Precision("fp16", "O2")], ids=str)
def test_the_learner_takes_both_on_a_gpu(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(r3d_fast.acceleration.gpu, "search_algorithms", lambda: called.append("search"))
    monkeypatch.setattr(r3d_fast.acceleration.gpu, "accelerate_training", lambda model: called.append(model) or model)
    config = load_config("demo", ["model.width=4", "model.data_format=NCDHW"])
    learner = a_learner(config, 4, precision, "gpu")
    assert called == ["search", learner.model]
    a_learner(config, 4, Precision(), "cpu")
    assert len(called) == 2


@pytest.mark.gpu
def test_on_a_gpu_the_search_is_on(on_gpu: str) -> None:
    before = paddle.get_flags([SEARCH, LIMIT])
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

"""The operations that `bench gpu` times, in tiny sizes on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import paddle
import pytest
from bench_process import REPO

from bench.gpu import kernels
from bench.gpu.plan import PERSISTENT


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("kernels") / "kernels.json"
    command = [sys.executable, "-W", "error", "-m", "bench.gpu.kernels", str(file), "cpu", "0", "all"]
    environment = {**os.environ, PERSISTENT: "0"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert len(done.stdout.splitlines()) == len(found["kernels"])
    return found


def test_each_operation_is_timed_in_both_layouts(measured: dict[str, Any]) -> None:
    names = (
        kernels.STEM_3, kernels.STEM_4, kernels.NORM_5D, kernels.NORM_4D, kernels.POOL_3D, kernels.POOL_2D,
        *kernels.STAGES,
    )  # fmt: skip
    expected = [("", kernels.COPY), ("", kernels.MATMUL)]
    expected += [(layout, name) for layout in ("NCDHW", "NDHWC") for name in names]
    timings = measured["kernels"]
    assert sorted((one["layout"], one["name"]) for one in timings) == sorted(expected)
    assert [one["problem"] for one in timings] == [""] * len(timings)
    for one in timings:
        assert len(one["ms"]) == 5
        assert min(one["ms"]) > 0
        assert one["gb_per_second"] > 0
        assert (one["tflop_per_second"] > 0) == one["name"].startswith(("stem", "conv", kernels.MATMUL))
    assert (measured["device"], measured["persistent"]) == ("cpu", "0")


def test_what_a_build_of_paddle_has_not_is_noted() -> None:
    found: list[dict[str, Any]] = []
    kernels.measure_kernels("cpu", ("fp16",), "norm", found.append)
    timings = found[-1]["kernels"]
    assert {one["name"] for one in timings} == {kernels.NORM_5D, kernels.NORM_4D}
    assert all(one["problem"] and not one["ms"] for one in timings)


def test_the_least_work_of_an_operation() -> None:
    """A convolution of 8 filters of 3^3 over 4 channels and 5 x 6 x 7 points, forward and both gradients."""
    kernel = kernels._convolution(paddle, "fp32", "NDHWC", 2, (4, 5, 6, 7), 8, 3)()
    macs = 2 * 8 * 5 * 6 * 7 * 4 * 27
    assert kernel.flops == 6 * macs
    assert kernel.bytes == 4 * 2 * 5 * 6 * 7 * (4 * 4 + 3 * 8)


@pytest.mark.parametrize("layout", ["NCDHW", "NDHWC"])
@pytest.mark.parametrize("shape", [(4, 6, 8, 10), (3, 5, 7, 9)])
def test_the_two_pools_compute_the_same(layout: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    monkeypatch.setattr(kernels, "_both_ways", lambda _, forward, learnt: forward)
    for twice in (False, True):
        paddle.seed(0)
        kernel = kernels._pool(paddle, "fp32", layout, 2, shape, twice=twice)()
        outputs.append(np.sort(kernel.run().numpy().ravel()))
    np.testing.assert_array_equal(*outputs)

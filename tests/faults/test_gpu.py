"""A GPU whose memory somebody else has taken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from pipelines.index.video_index import VideoIndex

# Leaves this much of the memory: Paddle's context and a clip fit, a batch of 24 clips does not.
_LEFT = 3 << 30
_HOLD = f"""
import sys
import paddle
paddle.set_device("gpu:0")
paddle.zeros([1])
import ctypes
free, total = ctypes.c_size_t(), ctypes.c_size_t()
assert ctypes.CDLL("libcuda.so.1").cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
held = paddle.zeros([max(1, free.value - {_LEFT})], dtype="uint8")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def crowded(paddle_gpu: str) -> Iterator[str]:
    """The GPU, of whose memory another process leaves little."""
    words = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield paddle_gpu
        other.stdin.close()


@pytest.mark.gpu
def test_a_batch_for_which_the_gpu_has_no_memory_left_ends_with_4_and_one_that_fits(
    index: VideoIndex, tmp_path: Path, crowded: str
) -> None:
    large = ("train.device=gpu", "train.precision=fp32", "model.width=64", "clip.num_frames=16", "augment.size_px=112")
    options = tiny.options(tiny.overrides(index, *large, "loader.batch_size=24", "train.epochs=1"))
    done = subprocess.run(
        tiny.command("train", "-c", "demo", "--run", tmp_path / "run", *options, "-o", "schedule.warmup_epochs=0"),
        env={**os.environ, "PYTHONPATH": str(tiny.REPO)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "out of memory on the GPU" in last
    assert re.search(r"-o loader\.batch_size=\d+", last)
    assert "Traceback" not in done.stderr

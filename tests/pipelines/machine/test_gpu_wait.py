from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stand_ins import cuda, python

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.machine.gpu_wait import choose_gpu_wait

# What is said to the driver about the primary context, in order, and what the log says.
TRACE = """
import ctypes, json, logging, os, sys
from pipelines.machine.gpu_wait import choose_gpu_wait
told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(f"{record.levelname} {record.getMessage()}")
logging.getLogger("pipelines").addHandler(handler)
logging.getLogger("pipelines").setLevel(logging.DEBUG)
def trace():
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.fake_trace.restype = ctypes.c_char_p
    return cuda.fake_trace().decode().strip()
WORK
print(json.dumps([trace(), told]))
"""
SLEEPS = "flags of 40: 12"  # CU_CTX_SCHED_BLOCKING_SYNC; CU_CTX_MAP_HOST, which was set before, stays


def traced(work: str, libraries: Path, **variables: str) -> list[Any]:
    setting = "".join(f"os.environ[{name!r}] = {value!r}; " for name, value in variables.items())
    trace, told, code = python(TRACE.replace("WORK", setting + "\n" + work), libraries=libraries)
    assert code == 0
    return [trace, told]


def test_threads_sleep_unless_they_are_to_spin(v100: Path) -> None:
    assert traced("choose_gpu_wait(0)", v100) == [SLEEPS, []]
    assert traced("choose_gpu_wait(0, 'spin')", v100) == ["", []]
    assert traced("choose_gpu_wait(0)", v100, R3D_FAST_GPU_WAIT="spin") == ["", []]
    assert traced("choose_gpu_wait(0, 'spin')", v100, R3D_FAST_GPU_WAIT="sleep") == [SLEEPS, []]


def test_the_first_call_counts(v100: Path) -> None:
    assert traced("choose_gpu_wait(0); choose_gpu_wait(0, 'spin'); choose_gpu_wait(0)", v100) == [SLEEPS, []]
    assert traced("choose_gpu_wait(0, 'spin'); choose_gpu_wait(0)", v100) == ["", []]


def test_what_was_chosen_can_be_asked(v100: Path) -> None:
    asked = "from pipelines.machine.gpu_wait import chosen_gpu_wait; told.append(chosen_gpu_wait(0))"
    assert traced(asked, v100) == ["", ["spin"]]  # CUDA's own way
    assert traced(f"choose_gpu_wait(0); {asked}", v100) == [SLEEPS, ["sleep"]]
    assert traced(f"choose_gpu_wait(1); {asked}", v100)[1][-1] == "spin"  # of another GPU
    assert traced(f"choose_gpu_wait(0, 'spin'); choose_gpu_wait(0); {asked}", v100) == ["", ["spin"]]
    assert traced(f"choose_gpu_wait(0); {asked}", v100, R3D_FAST_GPU_WAIT="spin") == ["", ["spin"]]


LOADER = """
from pathlib import Path
from pipelines import ClipLoader, LoaderSpec, VideoIndex
from pipelines.errors import R3DFastError
index = VideoIndex.open(Path(INDEX))
loader = ClipLoader(index, loader=LoaderSpec(batch_size=2, workers=0), split=None, train=True, device="gpu:0")
from pipelines.dali.routing import limits_of_device
limits_of_device("gpu:0")  # what makes the context
"""


def test_a_loader_chooses_before_any_context_is_made(v100: Path, index: VideoIndex) -> None:
    work = LOADER.replace("INDEX", repr(str(index.path)))
    assert traced(work, v100) == [f"{SLEEPS} retain", []]
    assert traced(work, v100, R3D_FAST_GPU_WAIT="spin") == ["retain", []]


def test_paddles_device_is_chosen_after_it(v100: Path) -> None:
    """Before Paddle is imported, as that may make a context."""
    work = """
from r3d_fast.backend import paddle
def imported():
    assert trace(), "Paddle is imported first"
    raise SystemExit
original, paddle.import_paddle = paddle.import_paddle, imported
paddle.what_paddle_lacks = lambda names: ""  # the GPU wheel of 2.6 finds no library here
try: paddle.choose_device(WANTED)
except SystemExit: pass
"""
    assert traced(work.replace("WANTED", "'auto'"), v100) == [SLEEPS, []]
    assert traced(work.replace("WANTED", "'gpu', 'sleep'"), v100) == [SLEEPS, []]
    with pytest.raises(AssertionError, match="Paddle is imported first"):
        traced(work.replace("WANTED", "'gpu', 'spin'"), v100)
    with pytest.raises(AssertionError, match="Paddle is imported first"):
        traced(work.replace("WANTED", "'cpu'"), v100)


def test_a_context_that_is_in_use_already(tmp_path: Path) -> None:
    """Drivers before CUDA 11 refuse then."""
    cuda(tmp_path, "-DFLAGS_V1")
    assert traced("choose_gpu_wait(0)", tmp_path) == [SLEEPS, []]
    work = """
from pipelines.machine.driver_library import load_library, primary_context
with primary_context(load_library("libcuda.so.1"), 0): choose_gpu_wait(0)
"""
    said = "DEBUG gpu:0: threads that wait for it may spin: cuDevicePrimaryCtxSetFlags_v2: CUDA_ERROR_FAKE"
    assert traced(work, tmp_path) == ["retain", [said]]


@pytest.mark.parametrize(
    ("flags", "init", "reason"),
    [
        (["-DOLD"], 0, "the driver is too old: it has no cuDevicePrimaryCtxGetState"),
        ([], 803, "cuInit: the kernel's driver and libcuda.so.1 differ in version (CUDA_ERROR_FAKE)"),
    ],
)
def test_a_driver_that_can_not_do_it(tmp_path: Path, flags: list[str], init: int, reason: str) -> None:
    cuda(tmp_path, *flags, init=init)
    assert traced("choose_gpu_wait(0)", tmp_path) == ["", [f"DEBUG gpu:0: threads that wait for it may spin: {reason}"]]


def test_no_driver_and_no_such_word(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_gpu_wait(999)
    monkeypatch.setenv("R3D_FAST_GPU_WAIT", "doze")
    with pytest.raises(UsageError, match=r"^R3D_FAST_GPU_WAIT='doze': expected 'sleep' or 'spin'$"):
        choose_gpu_wait(999)

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from small_disk import mounted
from stand_ins import cuda, python

from pipelines.errors import EnvironmentProblem
from pipelines.machine import gpu_wait
from pipelines.machine.cuda_libraries import needing_paddle
from r3d_fast.backend.paddle import choose_device, import_paddle, record_event


@pytest.mark.parametrize(("chosen", "blocking"), [({0: "sleep"}, True), ({0: "spin"}, False), ({1: "sleep"}, False)])
def test_a_thread_waits_for_an_event_as_was_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[int, Any], blocking: bool
) -> None:
    """Without the flag of its own, which is `blocking` in Paddle, a thread spins whatever the GPU's context says."""
    device = import_paddle().device
    signature = inspect.signature(device.Event)
    made: list[Any] = []

    class Event:
        def __init__(self, *given: Any, **named: Any) -> None:
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            made.append(bound.arguments["blocking"])

        def record(self) -> None:
            made.append("recorded")

    monkeypatch.setattr(device, "Event", Event)
    monkeypatch.setattr(gpu_wait, "_chosen", chosen)
    record_event()
    assert made == [blocking, "recorded"]


CHOOSE = """
import json, logging, os
WORK
told = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger("r3d_fast").addHandler(handler)
from r3d_fast.backend.paddle import choose_device
print(json.dumps([[choose_device(DEVICE), choose_device(DEVICE)], told]))
"""


def chosen(libraries: Path, *, device: str = "auto", work: str = "") -> list[Any]:
    devices, told, code = python(CHOOSE.replace("DEVICE", repr(device)).replace("WORK", work), libraries=libraries)
    assert (devices, code) == (["cpu", "cpu"], 0)
    return told


needs_cpu_build = pytest.mark.skipif(bool(needing_paddle()), reason="the GPU build says first which libraries it lacks")


@needs_cpu_build
def test_auto_beside_a_card_that_paddle_can_not_use_is_said_once(v100: Path, tmp_path: Path) -> None:
    to_do = "the CPU computes; to see what to do, run: r3d-fast doctor"
    assert chosen(v100) == [f"Tesla V100 is here, but this is Paddle's CPU build: {to_do}"]
    cuda(tmp_path / "broken", init=803)
    (told,) = chosen(tmp_path / "broken")
    assert told.startswith("an NVIDIA card is here, but cuInit: the kernel's driver and libcuda.so.1 differ in version")
    assert told.endswith(to_do)


@needs_cpu_build
def test_nothing_is_said_without_a_card_or_to_who_wants_the_cpu(v100: Path, tmp_path: Path) -> None:
    assert chosen(v100, device="cpu") == []
    assert chosen(v100, work="os.environ['CUDA_VISIBLE_DEVICES'] = ''") == []
    assert chosen(tmp_path) == []


@needs_cpu_build
def test_a_gpu_that_is_wanted_and_not_there() -> None:
    with pytest.raises(EnvironmentProblem, match=r"^train.device gpu: this is Paddle's CPU build; .* r3d-fast doctor$"):
        choose_device("gpu")


_TRAINS = """
from r3d_fast.acceleration.cpu import accelerate_training
from r3d_fast.backend.layers import paddle
from r3d_fast.models.architectures import build_model
model = build_model("r3d10", num_classes=2, width=8)
accelerate_training(model)(paddle.rand([1, 3, 4, 16, 16])).mean().backward()
"""


def test_a_graph_is_made_where_the_home_can_not_be_written_and_leaves_no_file(tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    with mounted(tmp_path / "home", "ro") as home:
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(place), "PYTHONPATH": str(tiny.REPO)}
        command = [sys.executable, "-c", _TRAINS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "faster" in done.stderr, done.stdout) == (0, False, ""), done.stderr
    assert [path.name for path in place.iterdir() if path.name != ".cache"] == []  # that is of Paddle's data sets

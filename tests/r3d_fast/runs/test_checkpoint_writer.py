from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from small_disk import mounted
from waiting import PATIENCE

from r3d_fast.backend import snapshot
from r3d_fast.backend.snapshot import DeviceCopy
from r3d_fast.errors import CheckpointError
from r3d_fast.runs import checkpoint_writer as saver
from r3d_fast.runs.checkpoint_writer import CheckpointWriter
from r3d_fast.weights.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    step_folder,
)
from r3d_fast.weights.tensor_file import write_tensors
from r3d_fast.weights.tensor_reader import read_tensors


def point(step: int, size: int = 4) -> Checkpoint:
    state = {"format": 1, "config": {}, "classes": [], "step": step}
    return Checkpoint({"w": np.full(size, step, np.float32)}, {}, state)


def steps(run: Path) -> list[int]:
    return [load_checkpoint(folder).state["step"] for folder in list_checkpoints(run)]


def fail_after(run: Path, checkpoint: Checkpoint, said: list[str]) -> None:
    with CheckpointWriter(run, 10, lambda: None, said.append) as writer:
        writer.submit(checkpoint)
        raise ZeroDivisionError


class Gate:
    """A `sync` that notes which write comes and, where asked to, holds it until it is let go."""

    def __init__(self) -> None:
        self.came, self.go, self.calls = threading.Semaphore(0), threading.Semaphore(0), 0

    def __call__(self) -> None:
        self.calls += 1
        self.came.release()
        assert self.go.acquire(timeout=PATIENCE)


@pytest.fixture
def said() -> list[str]:
    return []


def test_handing_over_waits_for_no_write_and_the_newest_waiting_one_counts(tmp_path: Path, said: list[str]) -> None:
    gate = Gate()
    with CheckpointWriter(tmp_path, 10, gate, said.append) as writer:
        writer.submit(point(1))
        assert gate.came.acquire(timeout=PATIENCE)
        for step in range(2, 100):  # while the write of 1 stands still
            writer.submit(point(step))
        assert list_checkpoints(tmp_path) == []
        gate.go.release(100)
    assert steps(tmp_path) == [1, 99]
    assert gate.calls == 2
    assert said == []


def test_the_best_is_never_dropped_and_goes_before_a_step_that_tells_of_it(tmp_path: Path, said: list[str]) -> None:
    gate = Gate()
    with CheckpointWriter(tmp_path, 10, gate, said.append) as writer:
        writer.submit(point(1))
        assert gate.came.acquire(timeout=PATIENCE)
        writer.submit(point(2))
        writer.submit(point(2), best=True)
        writer.submit(point(3))
        writer.submit(point(4))
        gate.go.release(2)
        assert gate.came.acquire(timeout=PATIENCE)  # the best begins
        assert gate.came.acquire(timeout=PATIENCE)  # step 4 begins
        assert load_checkpoint(tmp_path / "best").state["step"] == 2
        assert steps(tmp_path) == [1]
        gate.go.release(100)
    assert steps(tmp_path) == [1, 4]


def test_finish_returns_when_all_is_on_the_disk_and_only_the_last_are_kept(tmp_path: Path, said: list[str]) -> None:
    with CheckpointWriter(tmp_path, 2, lambda: None, said.append) as writer:
        for step in range(1, 6):
            writer.submit(point(step, 1000))
            writer.finish()
            assert steps(tmp_path)[-1] == step
    assert steps(tmp_path) == [4, 5]


def test_a_refusing_disk_is_said_once_and_saving_is_tried_again(tmp_path: Path, said: list[str], limit: Any) -> None:
    with CheckpointWriter(tmp_path, 10, lambda: None, said.append) as writer:
        writer.submit(point(1))
        writer.finish()
        limit(10_000)
        for step in (2, 3):
            writer.submit(point(step, 10**5), best=step == 2)
            with pytest.raises(CheckpointError, match="the last checkpoint can't be written \\(File too large\\)"):
                writer.finish()
        assert steps(tmp_path) == [1]
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
        assert len(said) == 1
        assert "can't be written (File too large); the checkpoint before it stays" in said[0]
        limit()
        writer.submit(point(4))
        writer.finish()
        assert steps(tmp_path) == [1, 4]
        assert load_checkpoint(tmp_path / "best").state["step"] == 2  # it had waited
        assert "the disk takes checkpoints again" in said[1]


def test_leaving_with_a_disk_that_refuses_is_an_error_but_hides_none(
    tmp_path: Path, said: list[str], limit: Any
) -> None:
    limit(10_000)
    with (
        pytest.raises(CheckpointError, match="step-000000007: the last checkpoint can't be written") as caught,
        CheckpointWriter(tmp_path, 10, lambda: None, said.append) as writer,
    ):
        writer.submit(point(7, 10**5))
    assert caught.value.exit_code == 5
    with pytest.raises(ZeroDivisionError):
        fail_after(tmp_path, point(8, 10**5), said)
    limit()
    assert len(said) == 2  # each disk that refuses is told once, when it does
    assert all("can't be written (File too large)" in line for line in said)
    assert "checkpoints" not in {thread.name for thread in threading.enumerate()}


def test_a_run_that_fails_still_leaves_what_it_handed_over(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after(tmp_path, point(3), said)
    assert steps(tmp_path) == [3]


def test_an_error_of_the_thread_reaches_training(tmp_path: Path, said: list[str]) -> None:
    wrong = Checkpoint({"w": np.array(["text"])}, {}, point(1).state)
    with CheckpointWriter(tmp_path, 10, lambda: None, said.append) as writer:
        writer.submit(wrong)
        with pytest.raises(KeyError):
            writer.finish()
        writer.submit(point(2))  # the thread lives
        writer.finish()
    assert steps(tmp_path) == [2]
    with (
        pytest.raises(KeyError),
        CheckpointWriter(tmp_path, 10, lambda: None, said.append) as writer,
    ):
        writer.submit(wrong)
    assert said == []
    with pytest.raises(ZeroDivisionError):
        fail_after(tmp_path, wrong, said)
    assert said == ["warning: 'str128'"]  # the error of the run is raised, this one told


def test_a_process_ends_though_its_writer_was_not_left(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from r3d_fast.runs.checkpoint_writer import CheckpointWriter\n"
        "writer = CheckpointWriter(Path(sys.argv[1]), 2, lambda: None, print)\n"
    )
    repo = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=repo, check=True, timeout=PATIENCE)


def test_a_really_full_disk_keeps_the_checkpoint_before(tmp_path: Path, said: list[str]) -> None:
    with mounted(tmp_path / "disk", "size=400k") as disk:
        with CheckpointWriter(disk, 2, lambda: None, said.append) as writer:
            writer.submit(point(1, 50_000))
            writer.finish()
            writer.submit(point(2, 50_000))
            with pytest.raises(CheckpointError, match="No space left on device"):
                writer.finish()
            assert steps(disk) == [1]
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert steps(disk) == [1, 2]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    """The only checkpoint of a run is replaced: for a moment only NAME.old is there."""
    folder = step_folder(tmp_path, 5)
    save_checkpoint(folder, point(5))
    folder.rename(folder.with_name(folder.name + ".old"))
    assert steps(tmp_path) == [5]
    save_checkpoint(folder, point(5))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_tensor_files_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "f": rng.normal(size=(3, 5, 7)).astype(np.float32),
        "turned": rng.normal(size=(4, 6)).T,
        "half": rng.normal(size=11).astype(np.float16),
        "flags": np.array([True, False, True]),
        "one": np.array(3, np.int64),
        "none": np.zeros((0, 3), np.int32),
        "bytes": np.arange(9, dtype=np.uint8),
    }
    with (tmp_path / "t").open("wb") as file:
        proof = write_tensors(file, arrays, {"key": "välue"})
    read, about = read_tensors(tmp_path / "t")
    assert about == {"key": "välue"}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(read[name], array)
    assert proof["bytes"] == os.path.getsize(tmp_path / "t")  # noqa: PTH202 - another way to ask


class OnGpu:
    """A CPU tensor that says it lies on a GPU."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.shape, self.dtype, self.place = tensor.shape, tensor.dtype, self

    def is_gpu_place(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)


class Event:
    def __init__(self) -> None:
        self.asked = 0

    def query(self) -> bool:
        self.asked += 1
        return self.asked > 3


def test_a_tensor_on_a_gpu_is_copied_there_and_fetched_by_the_thread(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: a stand-in for its place and its events."""
    monkeypatch.setattr(snapshot, "record_event", Event)
    pauses: list[float] = []
    monkeypatch.setattr(CheckpointWriter, "_pause", lambda self, seconds: pauses.append(seconds))
    tensor = paddle.arange(12, dtype="float32").reshape([3, 4])
    copies = snapshot.as_arrays({"w": OnGpu(tensor)})
    assert isinstance(copies["w"], DeviceCopy)
    tensor.zero_()  # training goes on
    with CheckpointWriter(tmp_path, 2, lambda: None, said.append) as writer:
        writer.submit(Checkpoint(copies, {}, point(1).state))
    loaded = load_checkpoint(step_folder(tmp_path, 1)).weights["w"]
    np.testing.assert_array_equal(loaded, np.arange(12, dtype=np.float32).reshape(3, 4))
    assert len(pauses) == 4  # name and array are hashed for the description, then header and array are written


def test_without_memory_for_a_copy_on_the_gpu_it_is_fetched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: Any) -> Any:
        raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0")

    monkeypatch.setattr(snapshot, "DeviceCopy", full)
    taken = snapshot.snapshot(OnGpu(paddle.ones([2])))
    np.testing.assert_array_equal(taken, np.ones(2, np.float32))


def test_a_snapshot_on_the_cpu_is_its_own() -> None:
    tensor = paddle.ones([2])
    taken = snapshot.snapshot(tensor)
    tensor.zero_()
    np.testing.assert_array_equal(taken, np.ones(2, np.float32))


def test_saving_takes_a_twentieth_of_the_time_unless_training_waits(tmp_path: Path) -> None:
    waits: list[float] = []
    with CheckpointWriter(tmp_path, 2, lambda: None, print) as writer:
        writer._hurry.wait = waits.append  # type: ignore[method-assign,assignment]
        writer._pause(0.01)
    assert waits == [pytest.approx(0.01 * saver._PAUSE)]


@pytest.mark.gpu
def test_a_snapshot_of_a_real_gpu(tmp_path: Path, paddle_gpu: str, said: list[str]) -> None:
    paddle.set_device(paddle_gpu)
    try:
        tensor = paddle.full([1000, 1000], 2.0)
        copies = snapshot.as_arrays({"w": tensor})
        assert isinstance(copies["w"], DeviceCopy)
        tensor.zero_()
        with CheckpointWriter(tmp_path, 2, lambda: None, said.append) as writer:
            writer.submit(Checkpoint(copies, {}, point(1).state))
    finally:
        paddle.set_device("cpu")
    assert (load_checkpoint(step_folder(tmp_path, 1)).weights["w"] == 2.0).all()

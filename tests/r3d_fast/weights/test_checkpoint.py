from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import UsageError
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.checkpoint import (
    Checkpoint,
    clean_leftovers,
    drop_old_checkpoints,
    find_weights,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    model_files,
    save_checkpoint,
    set_aside_newer,
    step_folder,
    weights_places,
)

REPO = Path(__file__).resolve().parents[3]


def example(step: int = 1) -> Checkpoint:
    weights = {"a.weight": np.full((3, 4), step, np.float32), "a._mean": np.arange(5, dtype=np.float64)}
    state = {"format": 1, "config": {}, "classes": ["x", "y"], "step": step, "position": 2**40}
    return Checkpoint(weights, {"a.weight|velocity_0": np.ones((3, 4), np.float32)}, state)


def flip_byte(path: Path, at: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", example(7))
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.state == example(7).state
    for name, array in example(7).weights.items():
        assert loaded.weights[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.weights[name], array)
    np.testing.assert_array_equal(loaded.optimizer["a.weight|velocity_0"], np.ones((3, 4), np.float32))
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob("*.old"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_byte_is_found_in_every_file(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "c", example())
    flip_byte(tmp_path / "c" / name)
    with pytest.raises(CheckpointError, match=rf"{name}: SHA-256 differs from the manifest") as caught:
        load_checkpoint(tmp_path / "c")
    assert caught.value.exit_code == 5


def test_a_cut_or_missing_file_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", example())
    weights = tmp_path / "c" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"bytes, the manifest says .*cut short"):
        load_checkpoint(tmp_path / "c")
    weights.unlink()
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path / "c")


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        save_checkpoint(step_folder(tmp_path, step), example(step))
    flip_byte(step_folder(tmp_path, 100) / "model.safetensors")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    folder, checkpoint, complaints = found
    assert folder == step_folder(tmp_path, 10)
    assert checkpoint.state["step"] == 10
    assert len(complaints) == 1
    assert "step-000000100" in complaints[0]
    for step in (5, 10):
        flip_byte(step_folder(tmp_path, step) / "state.json")
    with pytest.raises(CheckpointError, match="every checkpoint of the run is damaged"):
        latest_checkpoint(tmp_path)


def test_leftovers_of_killed_writes_are_ignored_and_cleaned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(step_folder(tmp_path, step), example(step))
    leftover = tmp_path / "checkpoints" / "step-000000009.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert [folder.name for folder in list_checkpoints(tmp_path)][-1] == "step-000000003"
    drop_old_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000000002", "step-000000003"]


def test_a_full_disk_keeps_the_checkpoint_that_was_there(tmp_path: Path, limit: Any) -> None:
    save_checkpoint(tmp_path / "c", example(1))
    big = Checkpoint({"w": np.zeros(10**6, np.float32)}, {}, example(2).state)
    limit(10**5)
    with pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path / "c", big)
    limit()
    assert load_checkpoint(tmp_path / "c").state["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    code = (
        "import itertools, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from r3d_fast.weights.checkpoint import *\n"
        "run = Path(sys.argv[1])\n"
        "print('go', flush=True)\n"
        "for step in itertools.count(1):\n"
        "    state = {'format': 1, 'config': {}, 'classes': [], 'step': step}\n"
        "    point = Checkpoint({'w': np.full(200_000, step, np.float32)}, {}, state)\n"
        "    save_checkpoint(step_folder(run, step), point)\n"
        "    save_checkpoint(run / 'best', point)\n"
        "    drop_old_checkpoints(run, 2)\n"
    )
    rng = np.random.default_rng(0)
    for attempt in range(8):
        run = tmp_path / str(attempt)
        child = subprocess.Popen([sys.executable, "-c", code, str(run)], cwd=REPO, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0.05, 0.4)))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = latest_checkpoint(run)
        assert found is not None
        assert found[2] == []
        assert (found[1].weights["w"] == found[1].state["step"]).all()
        assert find_weights(run).is_file()


def test_without_the_optimizer_its_file_is_checked_and_not_kept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", example(7))
    loaded = load_checkpoint(tmp_path / "c", with_optimizer=False)
    assert (loaded.state, loaded.optimizer) == (example(7).state, {})
    flip_byte(tmp_path / "c" / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: SHA-256 differs from the manifest"):
        load_checkpoint(tmp_path / "c", with_optimizer=False)


def test_newer_checkpoints_are_set_aside(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_checkpoint(step_folder(tmp_path, step), example(step))
    set_aside_newer(tmp_path, step_folder(tmp_path, 10))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000005", "step-000000010", "step-000000100.damaged"]
    assert [folder.name for folder in list_checkpoints(tmp_path)] == names[:2]


def test_what_killed_writes_left_is_cleaned_and_a_checkpoint_that_stood_by_gets_its_name(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(step_folder(tmp_path, step), example(step))
    save_checkpoint(tmp_path / "best.old", example(1))
    step_folder(tmp_path, 1).rename(tmp_path / "checkpoints" / "step-000000001.old")
    save_checkpoint(tmp_path / "checkpoints" / "step-000000002.old", example(9))
    (tmp_path / "checkpoints" / "step-000000003.tmp").mkdir()
    clean_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoints"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000001", "step-000000002"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert [load_checkpoint(folder).state["step"] for folder in list_checkpoints(tmp_path)] == [1, 2]
    assert load_checkpoint(tmp_path / "best").state["step"] == 1


def test_the_weights_of_a_run_are_its_best_ones_else_the_newest(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (5, 10):
        save_checkpoint(step_folder(run, step), example(step))
    newest = [step_folder(run, step) / "model.safetensors" for step in (10, 5)]
    assert (find_weights(run), weights_places(run)) == (newest[0], newest)
    for name in ("best.old", "best"):
        save_checkpoint(run / name, example(5))
        assert find_weights(run) == run / name / "model.safetensors"
    save_checkpoint(run / "best.old", example(5))  # the one that stood by went when the best had its place
    assert weights_places(run) == [run / "best" / "model.safetensors", run / "best.old" / "model.safetensors", *newest]
    assert find_weights(newest[0]) == newest[0]
    assert find_weights(newest[0].parent) == newest[0]
    assert {run, run / "config.yaml", *weights_places(run)} <= set(model_files(run))
    assert newest[0].with_name("manifest.json") in model_files(run)
    assert newest[0].with_name("manifest.json") in model_files(newest[0])


def test_the_error_of_the_system_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"c: not a complete checkpoint \(manifest.json: No such file or directory\)"
    ):
        load_checkpoint(tmp_path / "c")


def test_what_has_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder; expected a run folder"):
        find_weights(tmp_path / "nothing")
    with pytest.raises(UsageError, match="a folder without a model"):
        find_weights(tmp_path)

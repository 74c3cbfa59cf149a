from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from stand_ins import python

from pipelines.machine.cpus import cpu_name, usable_cpus
from r3d_fast.runs.environment import commit_hash, environment, has_changes


def test_the_environment_names_gpu_and_driver(v100: Path) -> None:
    assert {"versions", "cpu", "cpus", "gpus", "driver", "commit", "command"} <= environment().keys()
    code = "import json; from r3d_fast.runs.environment import environment; print(json.dumps([environment()]))"
    found = python(code, libraries=v100)[0]
    assert (found["gpus"], found["driver"]) == (["Tesla V100"], "550.54.15")


def test_the_environment_names_processor_and_packages() -> None:
    found = environment()
    assert (found["cpu"], found["cpus"]) == (cpu_name(), usable_cpus())
    assert found["versions"]["numpy"] == np.__version__


def test_the_commit_and_whether_a_tracked_file_changed(tmp_path: Path, git: Callable[..., str]) -> None:
    folder = tmp_path / "checkout"
    (folder / "package").mkdir()
    (folder / "untracked").mkdir()
    assert commit_hash(folder) == commit_hash(tmp_path / "none") == ""
    assert not has_changes(folder)
    git("init")
    assert commit_hash(folder) == ""
    (folder / "package" / "a.py").write_text("1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "one")
    (folder / "results.json").write_text("{}\n", encoding="utf-8")
    assert commit_hash(folder) == commit_hash(folder / "package") == git("rev-parse", "HEAD")
    assert commit_hash(folder, short=True) == git("rev-parse", "--short", "HEAD")
    assert commit_hash(folder / "untracked") == ""
    assert not has_changes(folder)
    (folder / "package" / "a.py").write_text("2\n", encoding="utf-8")
    assert has_changes(folder)

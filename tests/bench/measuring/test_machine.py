from __future__ import annotations

import getpass
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from stand_ins import python

from bench.measuring.machine import commit, describe, gpus_in_words
from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.memory import usable_memory


def test_the_machine_is_described_without_who_and_where() -> None:
    machine = describe()
    text = json.dumps(asdict(machine))
    for private in (platform.node(), getpass.getuser(), Path.home().name, Path.cwd().name):
        assert not re.search(rf"(?<![\w-]){re.escape(private)}(?![\w-])", text), private
    assert str(Path.home()) not in text
    assert machine.cpus == usable_cpus()
    assert machine.memory_gib == pytest.approx(usable_memory() / 2**30, abs=0.1)
    assert machine.cpu == cpu_name()
    assert machine.python == platform.python_version()
    assert machine.versions["numpy"] == np.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", machine.versions["libavcodec"])
    assert "decord2" not in machine.versions


def test_describing_does_not_import_what_it_names() -> None:
    code = (
        "import sys; from bench.measuring.machine import describe\n"
        "describe(); print({'paddle', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Some GPU"], "Some GPU"),
        (["A GPU", "A GPU", "B GPU"], "2 x A GPU, B GPU"),
        ([], None),
    ],
)
def test_gpus_of_one_name_are_counted(names: list[str], expected: str | None) -> None:
    assert gpus_in_words(names) == expected


def test_gpus_are_those_that_cuda_finds(v100: Path) -> None:
    code = "import json; from bench.measuring.machine import describe; print(json.dumps([describe().gpu]))"
    assert python(code, libraries=v100)[0] == "Tesla V100"


def test_the_commit_is_marked_where_a_tracked_file_changed(tmp_path: Path, git: Callable[..., str]) -> None:
    folder = tmp_path / "checkout"
    (folder / "package").mkdir()
    (folder / "untracked").mkdir()
    assert commit(folder) == commit(tmp_path / "none") == ""
    git("init")
    assert commit(folder) == ""
    (folder / "package" / "a.py").write_text("1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "one")
    short = git("rev-parse", "--short", "HEAD")
    (folder / "results.json").write_text("{}\n", encoding="utf-8")
    assert commit(folder) == commit(folder / "package") == short
    assert commit(folder / "untracked") == ""
    (folder / "package" / "a.py").write_text("2\n", encoding="utf-8")
    assert commit(folder) == f"{short}+"

"""The doctor before machines and installations that are broken in known ways: one remedy for each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_setups import SETUPS, examined
from stand_ins import cuda

from pipelines.machine.container import container, install_driver
from pipelines.machine.cuda_libraries import needing_paddle
from r3d_fast.doctor.known_errors import old_glibc


@pytest.mark.parametrize("setup", SETUPS, ids=[setup["name"] for setup in SETUPS])
def test_one_remedy(setup: dict[str, Any], tmp_path: Path) -> None:
    if setup.get("container", container()) != container():
        pytest.skip(f"not in {setup['container']}")
    checks, text = examined(setup, tmp_path)
    assert checks[setup["check"]]["state"] != "ok"
    assert setup["found"] in checks[setup["check"]]["found"]
    remedy = [
        line.replace("{driver 450}", install_driver("450")).replace("{glibc}", old_glibc()) for line in setup["remedy"]
    ]
    if remedy == ["{links}"]:
        folder = tmp_path / "venv" / "share" / "r3d-fast"
        remedy = [f"export LD_LIBRARY_PATH={next(folder.iterdir())}:{tmp_path / 'driver'}"]
    said = {line for check in checks.values() if check["state"] != "ok" for line in check["to_do"].splitlines()}
    assert said == set(remedy)
    # In the text it stands once.
    assert re.findall("\u2192 (.*)", text) == remedy


RECORD = """
import paddle
try:
    paddle.base.core.get_cuda_current_device_id()
except OSError as error:
    print(error, end="")
"""


@pytest.mark.skipif(needing_paddle() != "2.6.2", reason="needs the wheel of paddlepaddle-gpu 2.6.2")
@pytest.mark.parametrize(
    "setup", [setup for setup in SETUPS if "init" in (setup["driver"] or {})], ids=lambda setup: setup["name"]
)
def test_the_texts_are_what_paddle_says(setup: dict[str, Any], tmp_path: Path) -> None:
    cuda(tmp_path / "driver", init=setup["driver"]["init"])
    searched = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "driver")}
    done = subprocess.run([sys.executable, "-c", RECORD], env=searched, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\n") == setup["paddle"]["unseen"]

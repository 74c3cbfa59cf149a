"""What `bench gpu` writes of the machine, here where no NVIDIA program is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_process import REPO
from stand_ins import REAL_DRIVER, cuda, python

from bench.gpu.inventory import anonymous, inventory, others_on_the_card, said_by

SMI = """
==============NVSMI LOG==============
Driver Version                            : 550.54.15
GPU 00000000:07:00.0
    Product Name                          : Tesla V100-SXM2-16GB
    Serial Number                         : 0324018045603
    Platform Info
        Chassis Serial Number             : 1820923000123
        Host ID                           : 7
        GPU Fabric GUID                   : 0x51d2a7a8f3b1c9e0
    GPU UUID                              : GPU-5c9b1f0f-aaaa-bbbb-cccc-0123456789ab
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 4242
            Name                          : /home/someone/secret.py
    Fabric
        State                             : Completed
        ClusterUUID                       : 7d1f3c52-dddd-eeee-ffff-0123456789ab
    Clocks
        SM                                : 135 MHz
"""


def test_everything_is_there_and_a_program_that_is_not_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    lscpu = tmp_path / "bin" / "lscpu"
    lscpu.write_text("#!/bin/sh\necho Model name: stand-in\n")
    lscpu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = inventory()
    assert found["programs"]["nvidia-smi"] == "nvidia-smi: No such file or directory"
    assert found["programs"]["lscpu"] == "Model name: stand-in\n"
    assert found["cpus"] >= 1
    assert any(package.startswith("numpy==") for package in found["packages"])
    assert set(found["libraries"]) >= {"libcuda.so.1", "libnvcuvid.so.1", "libnvidia-ml.so.1"}
    assert {"kernel", "container", "cgroup", "versions", "gpu"} <= set(found)
    json.dumps(found)


def test_what_tells_one_card_from_others_is_left_out() -> None:
    text = anonymous(SMI)
    for hidden in ("0324018045603", "5c9b1f0f", "secret", "4242", "7d1f3c52", "1820923000123", "Host ID", "51d2a7a8"):
        assert hidden not in text
    for shown in ("Tesla V100-SXM2-16GB", "550.54.15", "Clocks", "135 MHz"):
        assert shown in text


@pytest.mark.parametrize(
    ("script", "count"), [("echo 4242; echo 17", 2), ("true", 0), ("echo 'No devices were found'; exit 6", None)]
)
def test_who_else_computes_on_the_card_is_counted(
    script: str, count: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi is asked about the address of CUDA's first card, not about its own first one."""
    cuda(tmp_path / "libraries")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n[ $1 = --id=0000:00:00.0 ] || exit 1\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code = "import json; from bench.gpu.inventory import *; print(json.dumps([others_on_the_card()]))"
    assert python(code, libraries=tmp_path / "libraries") == [count, 0]


@pytest.mark.skipif(REAL_DRIVER, reason="CUDA works here")
def test_without_cuda_nobody_knows_who_else_computes() -> None:
    assert others_on_the_card() is None


def test_a_program_that_fails_says_why() -> None:
    assert said_by(("sh", "-c", "echo no devices >&2; exit 9")) == "sh: exit code 9: no devices"


def test_as_a_process_it_writes_and_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "bench.gpu.inventory", str(tmp_path / "machine.json")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--- nvidia-smi" in done.stdout
    assert json.loads((tmp_path / "machine.json").read_text())["cpu"]

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.machine.cpus import cpu_name, is_amd_with_avx2, usable_cpus


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, 1000),
        ({"cpu.max": "max 100000\n"}, 1000),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1000),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "nonsense"}, 1000),
    ],
    ids=str,
)
def test_usable_cpus_are_those_of_the_container(tmp_path: Path, files: dict[str, str], share: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == min(share, len(os.sched_getaffinity(0)))


EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7543  32-Core   Processor
flags\t\t: fpu sse4_2 avx avx2

processor\t: 1
vendor_id\t: AuthenticAMD
model name\t: another one
flags\t\t: fpu
"""


def test_the_first_processor_is_named_and_asked(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(EPYC, encoding="utf-8")
    assert cpu_name(tmp_path / "cpuinfo") == "AMD EPYC 7543 32-Core Processor"
    assert is_amd_with_avx2(tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    "text",
    [
        EPYC.replace("AuthenticAMD", "GenuineIntel"),
        EPYC.replace(" avx2", ""),
        EPYC.replace("avx2", "avx2_like"),
        "CPU implementer\t: 0x41\n",
        "",
    ],
)
def test_other_processors_are_not_amds_with_avx2(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert not is_amd_with_avx2(tmp_path / "cpuinfo")


def test_a_processor_without_a_name_is_called_by_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("processor\t: 0\nCPU implementer\t: 0x41\n", encoding="utf-8")
    named = cpu_name(tmp_path / "arm")
    assert named == cpu_name(tmp_path / "none")
    assert named.strip()
    assert not is_amd_with_avx2(tmp_path / "none")


def test_this_machine_has_a_processor() -> None:
    assert cpu_name().strip()
    assert "\n" not in cpu_name()

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import cuda, cuvid, python

from pipelines.machine.container import container, install_driver
from pipelines.machine.nvidia import Driver, Gpu, cards_on_bus, driver_version

PROBE = """
import ctypes, json
from dataclasses import asdict
from pipelines.machine.nvdec import probe_decoder
from pipelines.machine.nvidia import probe_driver
answer = [asdict(probe_driver()), asdict(probe_decoder())]
try: answer.append(ctypes.CDLL("libcuda.so.1").fake_contexts())
except (OSError, AttributeError): answer.append(None)
print(json.dumps(answer))
"""


def test_the_driver_of_a_v100(v100: Path) -> None:
    driver, decoder, contexts, _ = python(PROBE, libraries=v100)
    gpu = {"index": 0, "name": "Tesla V100", "arch": 70, "memory_mib": 16384}
    assert driver == {"version": "550.54.15", "cuda": [12, 4], "gpus": [gpu], "problem": "", "to_do": ""}
    assert contexts == 0  # none is left current or held
    assert decoder["problem"] == ""
    caps = {(c["codec"], c["chroma"], c["bit_depth"]): c for c in decoder["caps"]}
    assert set(caps) == {
        *((codec, "4:2:0", 8) for codec in ("mpeg1video", "mpeg2video", "mpeg4", "vc1", "h264")),
        *((codec, "4:2:0", bits) for codec in ("hevc", "vp9") for bits in (8, 10, 12)),
    }
    assert caps["mpeg4", "4:2:0", 8] == {
        "codec": "mpeg4", "chroma": "4:2:0", "bit_depth": 8, "engines": 1, "min_width_px": 48, "min_height_px": 16,
        "max_width_px": 2032, "max_height_px": 2032, "max_macroblocks": 8192,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "options", "problem", "to_do"),
    [
        (
            [],
            {"init": 803},
            "cuInit: the kernel's driver and libcuda.so.1 differ in version (CUDA_ERROR_FAKE)",
            "reboot",
        ),
        ([], {"init": 100}, "cuInit: no GPU is visible (CUDA_ERROR_FAKE)", "nvidia-smi"),
        ([], {"init": 7}, "cuInit: CUDA_ERROR_FAKE", "nvidia-smi"),
        (["-DCOUNT=0"], {}, "no GPU is visible", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_driver_that_shows_no_gpu(
    tmp_path: Path, flags: list[str], options: dict[str, int], problem: str, to_do: str
) -> None:
    cuda(tmp_path, *flags, **options)  # type: ignore[arg-type]
    driver, decoder, _, _ = python(PROBE, libraries=tmp_path)
    assert (driver["gpus"], driver["cuda"], driver["problem"]) == ([], [12, 4], problem)
    assert to_do in driver["to_do"]
    assert decoder["caps"] == []


def test_libraries_of_the_driver_that_lack_something(tmp_path: Path) -> None:
    cuda(tmp_path / "old", "-DOLD", version=9010)
    cuvid(tmp_path / "old", "-Wl,--unresolved-symbols=ignore-all")
    driver, decoder, _, _ = python(PROBE, libraries=tmp_path / "old")
    assert driver["cuda"] == [9, 1]
    assert decoder["problem"] == "the driver is too old: it has no cuDevicePrimaryCtxRetain"
    assert decoder["to_do"] == install_driver()

    cuda(tmp_path / "no_video")
    driver, decoder, contexts, _ = python(PROBE, libraries=tmp_path / "no_video")
    assert (len(driver["gpus"]), contexts) == (1, 0)
    assert decoder["problem"] == "libnvcuvid.so.1 is not there"
    assert ("compute,utility,video" if container() else "libnvidia-decode") in decoder["to_do"]

    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "libcuda.so.1").write_bytes(b"\x7fELF")
    driver, decoder, _, _ = python(PROBE, libraries=tmp_path / "torn")
    assert driver["problem"].startswith("libcuda.so.1 can't be loaded: ")
    assert "nvidia-smi" in driver["to_do"]
    assert decoder["problem"] == driver["problem"]


@pytest.mark.parametrize(
    ("arch", "driver", "cuda", "archs", "reason"),
    [
        (70, (12, 4), 11, (61, 70, 75, 80, 86), ""),
        (89, (12, 4), 11, (61, 70, 75, 80, 86), ""),
        (90, (12, 4), 11, (61, 70, 75, 80, 86), "no code for card (sm_90) in it"),
        (80, (12, 4), 12, (86,), "no code for card (sm_80) in it"),
        (70, (13, 0), 13, (), "no code for card (sm_70) in it: CUDA 13 begins with sm_75"),
        (80, (12, 4), 13, (), "it needs CUDA 13 (driver 580 or later), this driver supports up to 12.4"),
        (80, (11, 4), 12, (), "it needs CUDA 12 (driver 525 or later), this driver supports up to 11.4"),
        (80, (13, 0), 12, (), ""),
    ],
)
def test_misfits(arch: int, driver: tuple[int, int], cuda: int, archs: tuple[int, ...], reason: str) -> None:
    assert Driver("", driver, (Gpu(0, "card", arch, 1),), "", "").misfit(cuda, archs) == reason
    assert Driver("", driver, (), "", "").misfit(cuda, archs) == ""


def test_cards_and_driver_versions(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n", encoding="utf-8")
        (tmp_path / name / "class").write_text(kind + "\n", encoding="utf-8")
    assert cards_on_bus(tmp_path) == 1  # neither its sound nor another maker's
    for kind in ("NVIDIA UNIX x86_64 Kernel Module ", "NVIDIA UNIX Open Kernel Module for x86_64 "):
        text = f"NVRM version: {kind} 560.35.03  Fri Aug 16 21:39:15 UTC 2024\nGCC version:  gcc version 12.3.0\n"
        (tmp_path / "version").write_text(text, encoding="utf-8")
        assert driver_version(proc=tmp_path / "version") == "560.35.03"


def test_where_a_gpu_sits_on_the_bus(tmp_path: Path) -> None:
    cuda(tmp_path)
    code = (
        "import json; from pipelines.machine.driver_library import LibraryFailed\n"
        "from pipelines.machine.nvidia import pci_bus_id\n"
        "def found(index):\n try: return pci_bus_id(index)\n except LibraryFailed as failed: return failed.problem\n"
        "print(json.dumps([found(0), found(7)]))"
    )
    assert python(code, libraries=tmp_path)[:2] == ["0000:00:00.0", "CUDA finds no GPU 7"]

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import cuda, cuvid, python

from pipelines.machine.nvidia import DecoderCaps, Driver, Gpu, can_decode, cards_on_bus, container, driver_version

PROBE = """
import ctypes, json
from dataclasses import asdict
from pipelines.machine.nvidia import probe_decoder, probe_driver
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
    assert decoder["to_do"] == "install a newer NVIDIA driver"

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


def caps(codec: str, bit_depth: int = 8, least: int = 48, most: int = 4096, blocks: int = 65536) -> DecoderCaps:
    return DecoderCaps(codec, "4:2:0", bit_depth, 1, least, least, most, most, blocks)


@pytest.mark.parametrize(
    ("codec", "bit_depth", "chroma", "width", "height", "reason"),
    [
        ("mpeg4", 8, "4:2:0", 320, 240, ""),
        ("mpeg4", 8, "4:2:0", 1920, 1080, ""),
        ("mpeg4", 8, "4:2:0", 2032, 2032, "mpeg4 of 2032x2032, 16129 macroblocks: NVDEC takes up to 8192"),
        ("mpeg4", 8, "4:2:0", 2048, 320, "mpeg4 of 2048x320: NVDEC takes up to 2032x2032"),
        ("mpeg4", 8, "4:2:0", 320, 2048, "mpeg4 of 320x2048: NVDEC takes up to 2032x2032"),
        ("wmv3", 8, "4:2:0", 320, 240, ""),
        ("hevc", 10, "4:2:0", 1920, 1080, ""),
        ("hevc", 12, "4:2:0", 1920, 1080, "hevc of 4:2:0 12 bit: NVDEC takes 4:2:0 8 bit, 4:2:0 10 bit"),
        ("hevc", 8, "4:4:4", 1920, 1080, "hevc of 4:4:4 8 bit: NVDEC takes 4:2:0 8 bit, 4:2:0 10 bit"),
        ("hevc", 8, "4:2:0", 144, 128, "hevc of 144x128: NVDEC takes 144x144 or more"),
        ("av1", 8, "4:2:0", 320, 240, "no av1 on this GPU's NVDEC"),
        ("msmpeg4v3", 8, "4:2:0", 320, 240, "no msmpeg4v3 on this GPU's NVDEC"),
    ],
)
def test_can_decode(codec: str, bit_depth: int, chroma: str, width: int, height: int, reason: str) -> None:
    card = [caps("mpeg4", most=2032, blocks=8192), caps("vc1"), caps("hevc", 8, 144), caps("hevc", 10, 144)]
    assert can_decode(card, codec, bit_depth, chroma, width, height) == reason


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


def test_where_this_runs(tmp_path: Path) -> None:
    assert container(root=tmp_path, environment={}) == ""
    assert container(root=tmp_path, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "Kubernetes"
    assert container(root=tmp_path, environment={"APPTAINER_CONTAINER": "x.sif"}) == "Apptainer"
    assert container(root=tmp_path, environment={"container": "lxc"}) == "lxc"
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "proc" / "1" / "cgroup").write_text("12:cpu:/docker/0123\n", encoding="utf-8")
    assert container(root=tmp_path, environment={}) == "Docker"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".containerenv").touch()
    assert container(root=tmp_path, environment={}) == "Podman"


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

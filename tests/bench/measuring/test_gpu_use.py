"""How busy a GPU was, asked of stand-ins for the driver's libraries, and what is printed of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports import report, run
from stand_ins import REPO, library

from bench.measuring.gpu_use import FIGURES, GpuUse
from bench.reporting.figures import DecoderUse
from bench.reporting.results import load, save
from bench.reporting.tables import tables
from bench.reporting.terminal import run_table
from pipelines.errors import UsageError

CUDA = r"""
#include <stdio.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal < 2 ? 0 : 101; }
int cuDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:0%d:00.0", device - 40);
    return 0;
}
"""
# Refuses, with 3 (not supported), what REFUSED names; the GPU on bus 1 is busy, the one on bus 0 is not.
NVML = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifndef REFUSED
#define REFUSED ""
#endif
#define REFUSES(what) if (strstr(REFUSED, what)) return 3
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
static int busy[2] = {0, 1}, asked;
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Not Supported"; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) { *handle = &busy[bus[6] - '0']; return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { snprintf(name, length, "Tesla V100"); return 0; }
int nvmlDeviceGetDecoderUtilization(int *handle, unsigned *percent, unsigned *period) {
    REFUSES("nvdec");
    *percent = *handle ? (asked++ ? 50 : 90) : 0, *period = 166666;
    return 0;
}
int nvmlDeviceGetUtilizationRates(int *handle, utilization_t *rates) {
    REFUSES("sm");
    rates->gpu = 37 * *handle, rates->memory = 5;
    return 0;
}
#ifndef OLD
int nvmlDeviceGetPcieThroughput(int *handle, int counter, unsigned *kb) {
    REFUSES("pcie");
    *kb = counter == 1 ? 12500 : 250;  /* 1 is what the GPU receives */
    return 0;
}
#endif
int nvmlDeviceGetMemoryInfo(int *handle, memory_t *memory) { memory->used = 2048ull << 20; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(int *handle, unsigned *count, process_t *processes) {
    unsigned room = *count;
    *count = 2;
    if (room < 2) return 7;
    processes[0] = (process_t){1, 99ull << 20, 0, 0};
    processes[1] = (process_t){PID, strstr(REFUSED, "memory") ? UINT64_MAX : 512ull << 20, 0, 0};
    return 0;
}
"""
SAMPLE = """
import json, sys, time
from dataclasses import asdict
from bench.measuring.gpu_use import GpuSampler
sampler = GpuSampler(int(sys.argv[1]), period_seconds=0.001)
for _ in range(2):
    before = sampler.use().samples
    with sampler:
        while not sampler.use().absent.keys() >= set(sys.argv[2:]) or sampler.use().samples < before + 5:
            if sampler.use().samples == 0 and len(sampler.use().absent) == 6 and not sampler._thread:
                break
            time.sleep(0.001)
print(json.dumps(asdict(sampler.use())))
"""


def nvml(folder: Path, refused: str = "", *flags: str, pid: str = "getpid()", init: int = 0) -> None:
    figures = [f'-DREFUSED="{refused}"', f"-DPID={pid}", f"-DINIT={init}"]
    library(folder, "libnvidia-ml.so.1", NVML, *figures, *flags)


def sample(folder: Path | None, device: int = 1, absent: tuple[str, ...] = (), before: str = "") -> GpuUse:
    """What a process finds that has the libraries of `folder`, once it misses `absent`."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    environment |= {"LD_LIBRARY_PATH": str(folder)} if folder else {}
    command = [sys.executable, "-W", "error", "-c", before + SAMPLE, str(device), *absent]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    figures = {name: (two[0], two[1]) for name, two in values.pop("figures").items()}
    return GpuUse(figures=figures, **values)


def test_all_that_the_driver_tells_of_the_gpu_that_cuda_means(tmp_path: Path) -> None:
    library(tmp_path, "libcuda.so.1", CUDA)
    nvml(tmp_path)
    use = sample(tmp_path)
    assert (use.gpu, use.absent) == ("Tesla V100", {})
    assert use.samples >= 10  # of both times that it was entered
    assert use.figures == {
        "nvdec_percent": (50.0, 90.0),  # 90 once, then 50
        "sm_percent": (37.0, 37.0),
        "pcie_to_gpu_mb_per_second": (12.5, 12.5),
        "pcie_from_gpu_mb_per_second": (0.25, 0.25),
        "process_memory_mib": (512.0, 512.0),
        "card_memory_mib": (2048.0, 2048.0),
    }
    idle = sample(tmp_path, 0)
    assert (idle.figures["nvdec_percent"], idle.figures["sm_percent"]) == ((0.0, 0.0), (0.0, 0.0))  # measured as 0
    assert sample(tmp_path, 2).absent == dict.fromkeys(FIGURES, "CUDA finds no GPU 2")


def test_what_the_driver_refuses_is_absent_with_its_reason_and_never_0(tmp_path: Path) -> None:
    library(tmp_path, "libcuda.so.1", CUDA)
    nvml(tmp_path, "nvdec pcie memory")
    missing = ("nvdec_percent", "pcie_to_gpu_mb_per_second", "pcie_from_gpu_mb_per_second", "process_memory_mib")
    use = sample(tmp_path, absent=missing)
    assert use.absent == {
        **dict.fromkeys(missing[:3], "the driver says: Not Supported"),
        "process_memory_mib": "the driver doesn't count memory by process here",
    }
    assert use.figures == {"sm_percent": (37.0, 37.0), "card_memory_mib": (2048.0, 2048.0)}
    assert [use.median(name) for name in missing] == [use.high(name) for name in missing] == [None] * 4


def test_a_driver_that_is_old_or_knows_this_process_by_another_number(tmp_path: Path) -> None:
    library(tmp_path, "libcuda.so.1", CUDA)
    nvml(tmp_path, "", "-DOLD", pid="3")
    use = sample(tmp_path, absent=("pcie_to_gpu_mb_per_second", "process_memory_mib"))
    assert use.absent["pcie_from_gpu_mb_per_second"] == "the driver says: Function Not Found"
    assert use.absent["process_memory_mib"].startswith("the driver doesn't list this process; in a container")
    assert use.figures["nvdec_percent"] == (50.0, 90.0)


def test_without_libraries_all_is_absent(tmp_path: Path) -> None:
    nvml(tmp_path / "nvml")
    assert sample(tmp_path / "nvml").absent["sm_percent"] == "libcuda.so.1 is not there"
    nvml(tmp_path / "down", init=9)
    reasons = {
        "NVML can't be used; the driver says: Driver Not Loaded": sample(tmp_path / "down"),
        "NVML can't be used; the driver says: NVML Shared Library Not Found": sample(None),
        "nvidia-ml-py can't be imported (not here): pip install nvidia-ml-py": sample(
            None, before="import sys\nclass No:\n def find_spec(self, name, *_):\n  if name == 'pynvml': "
            "raise ImportError('not here')\nsys.meta_path.insert(0, No())\n"
        ),
    }  # fmt: skip
    for reason, use in reasons.items():
        assert use == GpuUse("", 0, {}, dict.fromkeys(FIGURES, reason))


USE = GpuUse(
    "Tesla V100", 9,
    {"nvdec_percent": (61.0, 88.0), "sm_percent": (7.0, 9.0), "pcie_to_gpu_mb_per_second": (220.0, 300.0),
     "card_memory_mib": (1500.0, 1600.0)},
    {"pcie_from_gpu_mb_per_second": "the driver says: Not Supported", "process_memory_mib": "not listed"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"absent": {}}, "expected each once"),
        ({"absent": {**USE.absent, "sm_percent": "also"}}, "expected each once"),
        ({"absent": {**USE.absent, "process_memory_mib": " "}}, "absent without a reason"),
        ({"figures": {**USE.figures, "sm_percent": (9.0, 7.0)}}, "expected 0 <= median <= highest"),
        ({"figures": {**USE.figures, "sm_percent": (-1.0, 7.0)}}, "expected 0 <= median <= highest"),
        ({"samples": 0}, "of 0 samples"),
    ],
)
def test_gpu_figures_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        replace(USE, **changes)


def test_gpu_figures_are_kept_and_printed(tmp_path: Path) -> None:
    plain = run()
    ours = replace(plain.figures[0], gpu=USE, routing=DecoderUse("hybrid", 0.62, "measured in the first batches"))
    measured = report(replace(plain, figures=(ours, *plain.figures[1:])))
    save(measured, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == measured
    text = tables([measured])
    assert "| r3d-fast | segments | 62 % | 61.0 (88.0) | 7.0 (9.0) | 220 (300) | - | - | 1500 (1600) | 2.18 |" in text
    assert "- no figure of PCIe from the GPU, MB/s: the driver says: Not Supported (r3d-fast)" in text
    assert "NVDEC" not in tables([report()])
    lines = run_table(measured.runs[0])
    assert "r3d-fast: decoder hybrid, 62 % by DALI: measured in the first batches" in lines
    assert "- segments, 2 workers: r3d-fast: decoder hybrid, 62 % by DALI: measured in the first batches" in text
    assert "NVDEC busy, % 61.0 (highest 88.0)" in lines
    assert "r3d-fast: no figure of GPU memory of the process, all contenders in it, MiB: not listed" in lines
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="expected 0 to 1"):
            DecoderUse("hybrid", share, "")


def test_results_of_before_there_were_gpu_figures_still_load() -> None:
    for path in sorted((REPO / "bench" / "results").glob("loader*.json")):
        for old in load(path).runs:
            assert all(figures.gpu is figures.routing is None for figures in old.figures)

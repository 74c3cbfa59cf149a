"""Compiles stand-ins for the libraries of NVIDIA's driver, and runs Python processes that load them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.machine.nvidia import probe_driver

REPO = Path(__file__).resolve().parents[3]
REAL_DRIVER = probe_driver().problem != "libcuda.so.1 is not there"
CUDA = r"""
#include <stdio.h>
#include <stddef.h>
#include <string.h>
static int initialised, retained, current;
static char trace[4096];  /* what was done to the primary context, in order */
const char *fake_trace(void) { return trace; }
int fake_contexts(void) { return retained + current; }
int fake_is_current(void) { return current; }
int cuInit(unsigned flags) { initialised = !INIT && !flags; return INIT; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return initialised ? 0 : 3; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, NAME); return device == 40 ? 0 : 101; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 16ull << 30; return device == 40 ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? ARCH / 10 : attribute == 76 ? ARCH % 10 : -1;
    return device == 40 ? 0 : 101;
}
int cuDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:0%d:00.0", device - 40);
    return 0;
}
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_FAKE"; return 0; }
#ifndef OLD
int cuDevicePrimaryCtxRetain(void **context, int device) {
    retained++, *context = &retained;
    strncat(trace, "retain ", sizeof trace - strlen(trace) - 1);
    return 0;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 8 + 1;  /* CU_CTX_MAP_HOST, CU_CTX_SCHED_SPIN */
    *active = retained > 0;
    return initialised ? 0 : 3;
}
#ifdef FLAGS_V1
int cuDevicePrimaryCtxSetFlags(int device, unsigned flags) {
    if (retained) return 708;
#else
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
#endif
    snprintf(trace + strlen(trace), sizeof trace - strlen(trace), "flags of %d: %u ", device, flags);
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = 15ull << 30, *total = 16ull << 30;
    return current ? 0 : 201;
}
int cuCtxPushCurrent_v2(void *context) { current += context == &retained; return 0; }
int cuCtxPopCurrent_v2(void **context) { current--; return 0; }
#endif
"""
# The struct as cuviddec.h of the Video Codec SDK writes it, so that a wrong layout on our side shows.
CUVID = r"""
#include <stdlib.h>
extern int fake_is_current(void);
typedef struct _CUVIDDECODECAPS {
    int eCodecType;
    int eChromaFormat;
    unsigned int nBitDepthMinus8;
    unsigned int reserved1[3];
    unsigned char bIsSupported;
    unsigned char nNumNVDECs;
    unsigned short nOutputFormatMask;
    unsigned int nMaxWidth;
    unsigned int nMaxHeight;
    unsigned int nMaxMBCount;
    unsigned short nMinWidth;
    unsigned short nMinHeight;
    unsigned char bIsHistogramSupported;
    unsigned char nCounterBitDepth;
    unsigned short nMaxHistogramBins;
    unsigned int reserved3[10];
} CUVIDDECODECAPS;
static const struct { int codec, bits, min_width, min_height, max_side, blocks; } v100[] = {
    {0, 8, 48, 16, 4080, 65280}, {1, 8, 48, 16, 4080, 65280}, {2, 8, 48, 16, 2032, 8192}, {3, 8, 48, 16, 2032, 8192},
    {4, 8, 48, 16, 4096, 65536}, {8, 12, 144, 144, 8192, 262144}, {10, 12, 128, 128, 8192, 262144},
};
int cuvidGetDecoderCaps(CUVIDDECODECAPS *caps) {
    if (!fake_is_current()) return 201;
#ifdef NO_ENGINE
    return 0;
#endif
    if (caps->eCodecType == 11) return 1;  /* a driver that has never heard of AV1 */
    for (int i = 0; i < 3; i++) if (caps->reserved1[i]) return 1;
    for (int i = 0; i < 10; i++) if (caps->reserved3[i]) return 1;
    caps->bIsSupported = 0;
    for (unsigned i = 0; i < sizeof v100 / sizeof *v100; i++) {
        if (v100[i].codec != caps->eCodecType || caps->eChromaFormat != 1) continue;
        if (caps->nBitDepthMinus8 + 8 > (unsigned)v100[i].bits) continue;
        caps->bIsSupported = caps->nNumNVDECs = 1;
        caps->nOutputFormatMask = 0xffff;
        caps->nMinWidth = v100[i].min_width, caps->nMinHeight = v100[i].min_height;
        caps->nMaxWidth = caps->nMaxHeight = v100[i].max_side, caps->nMaxMBCount = v100[i].blocks;
        caps->nMaxHistogramBins = 256;
    }
    return 0;
}
#ifdef CRASH
__attribute__((constructor)) static void crash(void) { abort(); }
#endif
"""
NVML = r"""
#include <stdio.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "550.54.15"); return 0; }
"""


def library(folder: Path, name: str, source: str, *flags: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a stand-in for the driver's libraries")
    if REAL_DRIVER:
        pytest.skip("the real driver's libraries would get in the way")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.c").write_text(source, encoding="utf-8")
    files = ["-o", str(folder / name), str(folder / f"{name}.c")]
    command = [compiler, "-shared", "-fPIC", *files, *flags, f"-Wl,-soname,{name}"]
    subprocess.run(command, check=True, capture_output=True)


def cuda(
    folder: Path, *flags: str, name: str = "Tesla V100", arch: int = 70, version: int = 12040, init: int = 0
) -> None:
    figures = [f'-DNAME="{name}"', f"-DARCH={arch}", f"-DVERSION={version}", f"-DINIT={init}"]
    library(folder, "libcuda.so.1", CUDA, *figures, *([] if "-DCOUNT=0" in flags else ["-DCOUNT=1"]), *flags)


def cuvid(folder: Path, *flags: str) -> None:
    library(folder, "libnvcuvid.so.1", CUVID, *flags, f"-L{folder}", "-l:libcuda.so.1")


def python(code: str, *arguments: object, paths: tuple[Path, ...] = (), libraries: Path | None = None) -> list[Any]:
    """Run `code` in a new Python; give the values that it prints as a JSON list, and then its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, REPO]))}
    environment |= {"LD_LIBRARY_PATH": str(libraries)} if libraries else {}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return [*json.loads(done.stdout), done.returncode]

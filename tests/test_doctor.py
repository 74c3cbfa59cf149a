from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest

from pipelines.nvidia import DecoderCaps, Driver, Gpu, can_decode, cards_on_bus, container, driver_version, probe_driver
from r3d_fast.cli import run_cli
from r3d_fast.doctor import Diagnosis, as_json, as_text, examine

REPO = Path(__file__).resolve().parent.parent
REAL_DRIVER = probe_driver().problem != "libcuda.so.1 is not there"
EXAMINE = """
import json, sys
from r3d_fast.doctor import as_json, as_text, examine
found = examine(patience_seconds=float(sys.argv[1]))
print(json.dumps([as_json(found), as_text(found)]))
sys.exit(found.exit_code)
"""
PROBE = """
import ctypes, json
from dataclasses import asdict
from pipelines.nvidia import probe_decoder, probe_driver
answer = [asdict(probe_driver()), asdict(probe_decoder())]
try: answer.append(ctypes.CDLL("libcuda.so.1").fake_contexts())
except (OSError, AttributeError): answer.append(None)
print(json.dumps(answer))
"""
CUDA = r"""
#include <stdio.h>
#include <stddef.h>
static int initialised, retained, current;
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
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_FAKE"; return 0; }
#ifndef OLD
int cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &retained; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
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
PADDLE = """
import numpy
__version__ = "2.6.2"
class version:
    cuda, cudnn = staticmethod(lambda: "11.8"), staticmethod(lambda: "8.6.0")
class device:
    class cuda:
        device_count = staticmethod(lambda: 1)
def is_compiled_with_cuda(): return True
class ones:
    def __init__(self, shape): self.shape = shape
    def numpy(self): return numpy.array([27.0])
class nn:
    class functional:
        @staticmethod
        def conv3d(x, weight):
            %s
            return x
"""
NO_KERNEL = 'raise OSError("(External) CUDA error(209), no kernel image is available for execution on the device.")'


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


@pytest.fixture(scope="module")
def v100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v100")
    cuda(folder)
    cuvid(folder)
    library(folder, "libnvidia-ml.so.1", NVML)
    return folder


def python(code: str, *arguments: object, paths: tuple[Path, ...] = (), libraries: Path | None = None) -> list[Any]:
    """What `code` prints as JSON, and its exit code at the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, REPO]))}
    environment |= {"LD_LIBRARY_PATH": str(libraries)} if libraries else {}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return [*json.loads(done.stdout), done.returncode]


def doctor(
    *paths: Path, libraries: Path | None = None, patience: float = 60.0, isolated: Path | None = None
) -> tuple[dict[str, dict[str, str]], str, int]:
    """(check by name, text, exit code) of a doctor with `paths` first; `isolated`: and nothing but what lies there."""
    code = EXAMINE
    if isolated:
        code = (
            f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p] + [{str(isolated)!r}]{code}"
        )
    report, text, exit_code = python(code, patience, paths=paths, libraries=libraries)
    assert report["exit_code"] == exit_code
    return {check["name"]: check for check in report["checks"]}, text, exit_code


def fake(folder: Path, module: str, code: str, distribution: str = "") -> Path:
    """`folder`, in which `module` runs `code` when it is imported, installed as `distribution` (name-version)."""
    place = folder
    for part in module.split("."):
        place /= part
        place.mkdir(parents=True, exist_ok=True)
        (place / "__init__.py").touch()
    (place / "__init__.py").write_text(code, encoding="utf-8")
    if distribution:
        name, version = distribution.rsplit("-", 1)
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip installs for r3d-fast without extras, less PyAV."""
    folder = tmp_path_factory.mktemp("bare")
    names = ["numpy", "click", "pyyaml", "pydantic", "pydantic_core", "annotated-types", "typing-extensions"]
    for name in [*names, "typing-inspection", "safetensors", "rich", "markdown-it-py", "mdurl", "pygments"]:
        files = metadata.distribution(name).files or []
        for first in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (folder / first).symlink_to(Path(str(metadata.distribution(name).locate_file(first))).resolve())
    return folder


@pytest.fixture(scope="module")
def here() -> Diagnosis:
    return examine()


def test_this_machine_can_train(here: Diagnosis) -> None:
    checks = {check.name: check for check in here.checks}
    assert here.exit_code == 0
    assert [check for check in here.checks if check.state == "missing"] == []
    assert metadata.version("av") in checks["PyAV"].found
    assert "mpeg4, h264, hevc, vp9, av1" in checks["PyAV"].found
    assert "vp8, vp9" in checks["DALI"].found
    assert "computes on the" in checks["Paddle"].found
    assert f"numpy {metadata.version('numpy')}" in checks["packages"].found
    if not here.driver.gpus:
        assert here.device == "cpu"
        assert checks["NVDEC"].state == "ok"


def test_text_is_aligned_and_fits_the_encoding(here: Diagnosis) -> None:
    lacking = Diagnosis(
        (here.checks[0], *here.checks[8:], type(here.checks[0])("odd", "missing", "x" * 9, "do \u00e4\nmore")),
        "",
        here.driver,
        here.decoder,
    )
    for encoding, arrow in (("utf-8", "\u2192"), ("ascii", "->"), ("latin-1", "->"), (None, "->")):
        text = as_text(lacking, encoding)
        text.encode(encoding or "ascii")
        lines = text.splitlines()
        column = lines[0].index(lacking.checks[0].found)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines[:-2])
        assert [line.split()[:2] for line in lines[-4:-2]] == [[arrow, "do"], [arrow, "more"]]
        assert lines[-1] == "Missing for training: odd."
    assert as_text(here).splitlines()[-1] == f"This machine can train on the {here.device.upper()}."


def test_the_command(here: Diagnosis, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.option("--json", "json_", is_flag=True)
    def command(json_: bool) -> int:
        click.echo(json.dumps(as_json(here), indent=1) if json_ else as_text(here, sys.stdout.encoding))
        return here.exit_code

    assert run_cli(command, ["--json"], "r3d-fast") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["device"] == here.device
    assert [check["name"] for check in report["checks"]] == [check.name for check in here.checks]
    assert {"version", "cuda", "gpus", "problem", "to_do"} == set(report["driver"])


def test_nothing_installed(bare: Path) -> None:
    checks, text, code = doctor(isolated=bare)
    assert code == 4
    assert text.splitlines()[-1] == "Missing for training: PyAV, DALI, Paddle."
    assert checks["packages"]["state"] == "ok"
    assert checks["PyAV"]["found"] == "av is not installed"
    assert checks["PyAV"]["to_do"].startswith("pip install --upgrade 'av>=")
    for name in ("DALI", "Paddle"):
        assert checks[name]["found"] == "not installed"
        assert REAL_DRIVER or checks[name]["to_do"] == "pip install 'r3d-fast[cpu]'"
    assert checks["plots"]["to_do"] == "pip install 'r3d-fast[plots]'"


def test_libraries_that_fail_to_import(tmp_path: Path) -> None:
    broken = "raise ImportError('libgomp.so.1: cannot open shared object file')"
    for module in ("av", "paddle", "nvidia.dali", "yaml"):
        fake(tmp_path, module, broken)
    checks, _, code = doctor(tmp_path)
    assert code == 4
    for name in ("PyAV", "Paddle", "DALI", "packages"):
        assert checks[name]["state"] == "missing"
        assert "ImportError: libgomp.so.1: cannot open" in checks[name]["found"]
    assert "apt-get install libgomp1" in checks["Paddle"]["to_do"]
    assert "--force-reinstall" in checks["PyAV"]["to_do"]
    assert checks["DALI"]["to_do"].startswith("pip uninstall -y nvidia-dali-cuda")


def test_libraries_that_crash_hang_or_leave(tmp_path: Path) -> None:
    fake(tmp_path, "av", "import os; os.kill(os.getpid(), 11)")
    fake(tmp_path, "nvidia.dali", "import time; time.sleep(100)")
    fake(tmp_path, "paddle", "import os; print('r3d-fast', flush=True); os._exit(0)")
    checks, _, code = doctor(tmp_path, patience=8.0)
    assert code == 4
    assert "ended by signal 11, Segmentation fault" in checks["PyAV"]["found"]
    assert "no answer within 8 s" in checks["DALI"]["found"]
    assert "its process ended with exit code 0" in checks["Paddle"]["found"]


def test_dali_is_not_blamed_for_pyav(tmp_path: Path) -> None:
    checks, _, code = doctor(fake(tmp_path, "av", "raise ImportError('no')"))
    assert code == 4
    assert checks["PyAV"]["state"] == "missing"
    assert checks["DALI"]["state"] == "ok"
    assert "not tried: no PyAV" in checks["DALI"]["found"]


def test_two_wheels_in_one_folder(tmp_path: Path) -> None:
    build = "nvidia-dali-cuda110"
    checks, _, code = doctor(fake(tmp_path, "unrelated", "", f"{build}-1.50.0"))
    assert code == 0
    assert checks["DALI"]["state"] == "warning"
    assert checks["DALI"]["to_do"].startswith(f"pip uninstall -y {build} ")


def test_a_v100_with_the_wheels_for_cpus(v100: Path) -> None:
    checks, text, code = doctor(libraries=v100)
    assert code == 0
    assert checks["GPU"]["found"] == "Tesla V100 (sm_70, 16 GiB); driver 550.54.15, CUDA up to 12.4"
    assert checks["NVDEC"]["found"].startswith("1 engine: mpeg1video 8 bit, mpeg2video 8 bit, mpeg4 8 bit, vc1 8 bit")
    assert "hevc 12 bit, vp9 12 bit" in checks["NVDEC"]["found"]
    if "CPU build" in checks["Paddle"]["found"]:
        assert (checks["Paddle"]["state"], text.splitlines()[-1]) == ("warning", "This machine can train on the CPU.")
        assert "pip install paddlepaddle-gpu==2.6.2 'numpy<2'" in checks["Paddle"]["to_do"]
    if "cuda130" in checks["DALI"]["found"]:
        assert "no code for Tesla V100 (sm_70) in it: CUDA 13 begins with sm_75" in checks["DALI"]["found"]
        assert checks["DALI"]["to_do"] == "pip uninstall -y nvidia-dali-cuda130 && pip install 'r3d-fast[cuda12]'"


def test_paddle_that_fits_and_paddle_that_has_no_code_for_the_card(v100: Path, bare: Path, tmp_path: Path) -> None:
    for name in ("fits", "fails"):
        fake(tmp_path / name, "nvidia.dali", "__version__ = '1.40.0'", "nvidia-dali-cuda120-1.40.0")
        fake(tmp_path / name, "nvidia.dali.fn", "")
    fake(tmp_path / "fits", "paddle", PADDLE % "", "paddlepaddle-gpu-2.6.2")
    fake(tmp_path / "fails", "paddle", PADDLE % NO_KERNEL, "paddlepaddle-gpu-2.6.2")
    checks, _, _ = doctor(tmp_path / "fits", libraries=v100, isolated=bare)
    assert (checks["Paddle"]["state"], checks["Paddle"]["to_do"]) == ("ok", "")
    assert "CUDA 11.8, cuDNN 8.6.0, computes on the GPU" in checks["Paddle"]["found"]
    assert (checks["packages"]["state"], checks["packages"]["to_do"]) == ("warning", "pip install 'numpy<2'")

    cuda(tmp_path / "h100", name="H100", arch=90, version=13000)
    checks, _, code = doctor(tmp_path / "fails", libraries=tmp_path / "h100", isolated=bare)
    assert code == 4
    assert "a 3D convolution fails: no code for H100 (sm_90) in it" in checks["Paddle"]["found"]
    assert "as Paddle's own site says" in checks["Paddle"]["to_do"]
    assert checks["Paddle"]["to_do"].endswith("or train on the CPU: -o train.device=cpu")
    assert checks["NVDEC"]["state"] == "warning"


def test_a_decoder_library_that_crashes(v100: Path, tmp_path: Path) -> None:
    fake(tmp_path, "paddle", PADDLE % "")
    cuda(tmp_path / "libraries")
    cuvid(tmp_path / "libraries", "-DCRASH")
    checks, _, _ = doctor(tmp_path, libraries=tmp_path / "libraries")
    assert checks["GPU"]["state"] == "ok"
    assert "asking the driver failed: its process was ended by signal 6" in checks["NVDEC"]["found"]


def test_few_open_files() -> None:
    code = "import json; from r3d_fast.doctor import _open_files; print(json.dumps(_open_files(40)))"
    for limits, state, to_do in (
        ("ulimit -Sn 200", "ok", ""),
        ("ulimit -Sn 64", "warning", "ulimit -n "),
        ("ulimit -n 64", "warning", "train with -o loader.workers=16"),
    ):
        command = ["sh", "-c", f'{limits} && exec "$@"', "sh", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(REPO)})
        found = json.loads(done.stdout)
        assert found[0] == state
        assert found[2].startswith(to_do)
        assert bool(found[2]) == bool(to_do)


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

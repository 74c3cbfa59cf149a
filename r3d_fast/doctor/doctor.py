"""Examines this machine: what it can do and, for each thing that is missing, the command that fixes it.

Each library is tried in a process of its own, all at the same time, so that one that crashes or hangs is reported like
any other finding.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from pipelines.errors import ExitCode
from pipelines.machine.container import container
from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.memory import usable_memory
from pipelines.machine.nvdec import DALI_CODECS, Decoder
from pipelines.machine.nvidia import Driver
from pipelines.machine.packages import installed_version
from r3d_fast.doctor.probes import DECODERS, PROBES, Facts, Probe, run_probe
from r3d_fast.download.rar_readers import TO_DO, describe_readers
from r3d_fast.version import __version__

State = Literal["ok", "warning", "missing"]
_Finding = tuple[State, str, str]  # (state, found, to_do) of a Check

# Files that a training process may have open, beyond one per worker of each of its two loaders. About 15 are in use.
_OPEN_FILES = 32
_OVERWRITTEN = "these wheels overwrite each other's files: install only one of them"
_PADDLE_26 = (61, 70, 75, 80, 86)  # GPU architectures in the wheels of paddlepaddle-gpu 2.6


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    `name` is what was checked, `found` describes it, `to_do` says how to fix it, empty if there is nothing to fix.
    """

    name: str
    state: State
    found: str
    to_do: str


@dataclass(frozen=True)
class Diagnosis:
    """The result of all checks. `device` is the one that `train.device: auto` uses, empty if training is impossible."""

    checks: tuple[Check, ...]
    device: str
    driver: Driver
    decoder: Decoder

    @property
    def exit_code(self) -> int:
        """0 if this machine can train, 4 if something that training needs is missing."""
        return ExitCode.OK if self.device else ExitCode.ENVIRONMENT


def examine(*, patience_seconds: float = 60.0) -> Diagnosis:
    """Run all checks. A library that does not answer within `patience_seconds` counts as hanging."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        probes = dict(zip(PROBES, pool.map(lambda name: run_probe(name, patience_seconds), PROBES), strict=True))
    driver, decoder = _asked(probes["driver"])
    paddle, pyav = probes["paddle"], probes["av"]
    cpus = usable_cpus()
    findings: dict[str, _Finding] = {
        "Python": ("ok", f"{platform.python_version()}, r3d-fast {__version__}", ""),
        "system": ("ok", ", ".join(filter(None, (platform.platform(), container()))), ""),
        "CPU": ("ok", f"{cpu_name()}, {cpus} usable", ""),
        "memory": ("ok", f"{usable_memory() / 2**30:.1f} GiB", ""),
        "/dev/shm": ("ok", _shared_memory(), ""),
        "open files": _open_files(cpus),
        "packages": _packages(probes["packages"], paddle),
        "PyAV": _pyav(pyav),
        "DALI": _dali(probes["dali"], driver, without_pyav=bool(pyav.error)),
        "Paddle": _paddle(paddle, driver),
        "GPU": _gpu(driver),
        "NVDEC": _nvdec(driver, decoder),
        "plots": _plots(),
        "archives": _archives(),
    }
    checks = tuple(Check(name, *finding) for name, finding in findings.items())
    missing = any(check.state == "missing" for check in checks)
    device = "" if missing else "gpu" if paddle.facts.get("gpus") else "cpu"
    return Diagnosis(checks, device, driver, decoder)


def as_json(diagnosis: Diagnosis) -> Facts:
    """The diagnosis as JSON values."""
    return {"version": __version__, "exit_code": diagnosis.exit_code, **asdict(diagnosis)}


def as_text(diagnosis: Diagnosis, encoding: str | None = "utf-8") -> str:
    """The diagnosis as an aligned table with a conclusion below it, in characters that `encoding` has."""
    encoding = encoding or "ascii"
    arrow = "\u2192" if "\u2192".encode(encoding, "ignore") else "->"
    indent = " " * (11 + max(len(check.name) for check in diagnosis.checks))
    lines = []
    for check in diagnosis.checks:
        text = f"{check.state:9}{check.name}".ljust(len(indent)) + check.found
        lines += textwrap.wrap(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        # Not wrapped, because it may be a command that the user copies.
        lines += [f"{indent}{arrow} {line}" for line in check.to_do.splitlines()]
    missing = ", ".join(check.name for check in diagnosis.checks if check.state == "missing")
    device = diagnosis.device.upper()
    lines += ["", f"This machine can train on the {device}." if device else f"Missing for training: {missing}."]
    return "\n".join(lines).encode(encoding, "replace").decode(encoding)


def _shared_memory() -> str:
    size, way = "not there", "anonymous memory"
    with suppress(OSError):
        about = os.statvfs("/dev/shm")
        size = f"{about.f_frsize * about.f_blocks / 2**20:.0f} MiB"
    try:
        os.close(os.memfd_create("r3d-fast doctor"))
    except OSError:  # some sandboxes forbid it
        way = "a file in the temporary folder"
    return f"{size}; not needed, because processes share clips through {way}"


def _open_files(cpus: int) -> _Finding:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (sys.maxsize if limit == resource.RLIM_INFINITY else limit for limit in limits)
    needed = 2 * cpus + _OPEN_FILES
    workers = "1 worker" if cpus == 1 else f"{cpus} workers"
    found = f"limit {'none' if soft == sys.maxsize else soft}; training with {workers} needs up to {needed}"
    if soft >= needed:
        return "ok", found, ""
    fewer = f"train with -o loader.workers={max(0, (soft - _OPEN_FILES) // 2)}"
    return "warning", found, f"ulimit -n {min(hard, 4096)}" if hard >= needed else fewer


def _needs() -> dict[str, str]:
    """The versions of each package that r3d-fast always needs, by name, such as ">=18.1,<19"."""
    try:
        lines = metadata.requires("r3d-fast") or []
    except metadata.PackageNotFoundError:  # run from its sources
        lines = ["numpy>=1.24", "av>=18.1,<19"]
    found = (re.fullmatch(r"([\w.-]+)\s*([<>]=?[^;]+)", line) for line in lines)
    # The wheel has the bounds in the order of the alphabet.
    return {match[1]: ",".join(sorted(match[2].strip().split(","), reverse=True)) for match in found if match}


def _wrong(name: str) -> str:
    """Why the package or its installed version can't be used; empty if it can."""
    version, needed = installed_version(name), _needs().get(name, "")
    least, _, below = needed.removeprefix(">=").partition(",<")
    if not version:
        return f"{name} is not installed"
    if _numbers(version) < _numbers(least):
        return f"{name} {version} is older than {least}"
    if below and _numbers(version) >= _numbers(below):
        return f"{name} {version} is too new: expected a version below {below}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers in `version`, for comparisons."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _packages(probe: Probe, paddle: Probe) -> _Finding:
    """Checks the packages that r3d-fast needs besides PyAV, DALI and Paddle."""
    needs = {name: least for name, least in _needs().items() if name != "av"}
    wrong = {name: problem for name in needs if (problem := _wrong(name))}
    if wrong:
        line = " ".join(f"'{name}{needs[name]}'" for name in wrong)
        return "missing", "; ".join(wrong.values()), f"pip install --upgrade {line}"
    found = ", ".join(f"{name} {installed_version(name)}" for name in needs)
    if probe.error:
        return "missing", f"{found}: {probe.error}", f"pip install --force-reinstall {' '.join(needs)}"
    version = paddle.facts.get("version") or installed_version("paddlepaddle-gpu") or installed_version("paddlepaddle")
    if version.startswith("2.") and _numbers(installed_version("numpy")) >= (2,):
        found = f"numpy {installed_version('numpy')}, but Paddle {version} was built for NumPy 1"
        return "missing" if paddle.error else "warning", found, "pip install 'numpy<2'"
    return "ok", found, ""


def _pyav(probe: Probe) -> _Finding:
    install = f"pip install --upgrade 'av{_needs().get('av', '')}'"
    if wrong := _wrong("av"):
        return "missing", wrong, install
    if probe.error:
        return "missing", f"av {installed_version('av')} can't be used: {probe.error}", f"{install} --force-reinstall"
    decoders = probe.facts["decoders"]
    found = f"{probe.facts['version']}, decodes {', '.join(decoders)}"
    if lacking := [codec for codec in DECODERS if codec not in decoders]:
        return "warning", f"{found}, but not {', '.join(lacking)}", f"{install} --force-reinstall --only-binary av"
    return "ok", found, ""


def _dali(probe: Probe, driver: Driver, *, without_pyav: bool) -> _Finding:
    names = {str(wheel.metadata["Name"]).lower().replace("_", "-") for wheel in metadata.distributions()}
    builds = sorted(name for name in names if re.fullmatch(r"nvidia-dali(-nightly|-weekly)?-cuda\d{3}", name))
    extra = "cpu" if not driver.gpus else "cuda12" if driver.cuda >= (12, 0) else "cuda11"
    change = f"pip uninstall -y {' '.join(builds)} && " * bool(builds) + f"pip install 'r3d-fast[{extra}]'"
    named = ", ".join(f"{name} {installed_version(name)}" for name in builds) or "DALI"
    untried = without_pyav and "version" in probe.facts
    if probe.error and not untried:
        return "missing", _trouble(named, bool(builds), probe.error), change
    codecs = "(not tried: no PyAV)" if untried else ", ".join(probe.facts["codecs"])
    found = f"{named}, CPU decoder: {codecs}" if codecs else f"{named}, no decoder that can select single frames"
    if len(builds) > 1:
        return "warning", f"{found}; {_OVERWRITTEN}", change
    if not codecs:
        return "warning", f"{found}: loader.decoder dali won't work", f"pip install --upgrade {' '.join(builds)}"
    if builds and (misfit := driver.misfit(int(builds[0][-3:-1]))):
        return "warning", f"{found}; it can't use this GPU: {misfit}", change
    return "ok", found, ""


def _trouble(named: str, installed: bool, error: str) -> str:
    """What is wrong with a library that could not be imported or used."""
    return "not installed" if not installed and "ModuleNotFound" in error else f"{named} can't be used: {error}"


def _paddle(probe: Probe, driver: Driver) -> _Finding:
    wheels = [name for name in ("paddlepaddle", "paddlepaddle-gpu") if installed_version(name)]
    named = ", ".join(f"{name} {installed_version(name)}" for name in wheels) or "Paddle"
    install, facts = _paddle_line(driver), probe.facts
    change = f"pip uninstall -y {' '.join(wheels)}\n{install}" if wheels else install
    if "libgomp" in probe.error:
        change = "install the system's libgomp (Debian, Ubuntu: apt-get install libgomp1)"
    if "version" not in facts:
        return "missing", _trouble(named, bool(wheels), probe.error), change
    build = f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}" if facts["cuda"] else "CPU build"
    found = ", ".join([named, build, *(f"sm_{arch}" for arch in facts["archs"])])
    misfit = _paddle_misfit(facts, driver)
    if probe.error:
        spare = "\nor train on the CPU: -o train.device=cpu" if facts.get("gpus") else ""
        return "missing", f"{found}; a 3D convolution fails: {misfit or probe.error}", change + spare
    if len(wheels) > 1:
        return "warning", f"{found}; {_OVERWRITTEN}", change
    if driver.gpus and not facts["gpus"]:
        return "warning", f"{found}, can't use the GPU{misfit and ': ' + misfit}", change
    return "ok", f"{found}, computes on the {'GPU' if facts['gpus'] else 'CPU'}", ""


def _paddle_line(driver: Driver) -> str:
    """How to install the Paddle that fits the GPUs, or the CPU if there are none."""
    if not driver.gpus:
        return "pip install 'r3d-fast[cpu]'"
    if driver.cuda >= (12, 0) and min(gpu.arch for gpu in driver.gpus) >= 75:
        return "install paddlepaddle-gpu as Paddle's own site says (for the CPU alone: pip install paddlepaddle)"
    python = " (in a Python of 3.12 or older)" if sys.version_info >= (3, 13) else ""
    return f"pip install 'r3d-fast[cuda11]'{python}"


def _paddle_misfit(facts: Facts, driver: Driver) -> str:
    """Why a GPU build can't run on the GPUs, judged by versions and architectures; empty if nothing is known."""
    archs = facts["archs"] or (_PADDLE_26 if facts["version"].startswith("2.6") else ())
    return driver.misfit(_numbers(facts["cuda"])[0], archs) if facts["cuda"] else ""


def _asked(probe: Probe) -> tuple[Driver, Decoder]:
    """The driver and the decoder that the probe found; each has a problem if the probe failed before it."""
    facts, problem, to_do = probe.facts, f"asking the driver failed: {probe.error}", "check whether nvidia-smi works"
    driver = Driver.from_json(facts["driver"]) if "driver" in facts else Driver("", (0, 0), (), problem, to_do)
    return driver, Decoder.from_json(facts["decoder"]) if "decoder" in facts else Decoder(0, (), problem, to_do)


def _gpu(driver: Driver) -> _Finding:
    version = f"driver {driver.version or 'of unknown version'}, CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.gpus:
        gpus = (f"{gpu.name} (sm_{gpu.arch}, {gpu.memory_mib / 1024:.0f} GiB)" for gpu in driver.gpus)
        return "ok", f"{', '.join(gpus)}; {version}", ""
    if driver.to_do:
        return "warning", f"{driver.problem}: everything runs on the CPU", driver.to_do
    return "ok", "no NVIDIA driver: everything runs on the CPU", ""


def _nvdec(driver: Driver, decoder: Decoder) -> _Finding:
    if not driver.gpus:
        return "ok", "no GPU: videos are decoded on the CPU", ""
    if not decoder.caps:
        said = f" (NVIDIA_DRIVER_CAPABILITIES={os.environ.get('NVIDIA_DRIVER_CAPABILITIES', '')})" * bool(container())
        return "warning", f"{decoder.problem}{said}: videos are decoded on the CPU", decoder.to_do
    depths: dict[str, int] = {}
    for caps in decoder.caps:
        if caps.codec in DALI_CODECS:
            depths[caps.codec] = max(caps.bit_depth, depths.get(caps.codec, 0))
    engines = max(caps.engines for caps in decoder.caps)
    counted = f"{engines} engine{'s' * (engines > 1)}: " if engines else ""
    codecs = ", ".join(f"{codec} {depth} bit" for codec, depth in depths.items())
    return "ok", f"{counted}{codecs or 'no codec that DALI can use'}; other videos are decoded on the CPU", ""


def _archives() -> _Finding:
    """Checks which archives `r3d-fast data download` can unpack."""
    if readers := describe_readers():
        return "ok", f"ZIP; RAR with {readers}", ""
    return "ok", "ZIP; no program that unpacks RAR, which `r3d-fast data download` needs", TO_DO


def _plots() -> _Finding:
    found = [f"{name} {version}" for name in ("matplotlib", "visualdl") if (version := installed_version(name))]
    return (
        "ok",
        ", ".join(found) or "none; optional",
        "" if installed_version("matplotlib") else "pip install 'r3d-fast[plots]'",
    )

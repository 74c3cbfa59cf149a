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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata

from pipelines.errors import ExitCode
from pipelines.machine.container import container
from pipelines.machine.cpus import cpu_name, usable_cpus
from pipelines.machine.memory import usable_memory
from pipelines.machine.nvdec import Decoder
from pipelines.machine.nvidia import Driver
from pipelines.machine.packages import installed_version, version_numbers
from r3d_fast.doctor.gpu_findings import Finding, State, cuda_libraries, dali, gpu, nvdec, paddle_build
from r3d_fast.doctor.known_errors import LEAST_GLIBC, old_glibc
from r3d_fast.doctor.probes import DECODERS, PROBES, Facts, Probe, run_probe
from r3d_fast.download.rar_readers import TO_DO, describe_readers
from r3d_fast.version import __version__

_CURVES = ("visualdl", "tensorboard", "wandb", "mlflow")  # the programs of `train.log_to`
# Files that a training process may have open, beyond one per worker of each of its two loaders. About 15 are in use.
_OPEN_FILES = 32


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
    cpus, system = usable_cpus(), _system(glibc_version())
    findings: dict[str, Finding] = {
        "Python": ("ok", f"{platform.python_version()}, r3d-fast {__version__}", ""),
        "system": system,
        "CPU": ("ok", f"{cpu_name()}, {cpus} usable", ""),
        "memory": ("ok", f"{usable_memory() / 2**30:.1f} GiB", ""),
        "/dev/shm": ("ok", _shared_memory(), ""),
        "open files": _open_files(cpus),
        "packages": _packages(probes["packages"], paddle),
        "PyAV": _pyav(pyav),
        "DALI": dali(probes["dali"], driver, without_pyav=bool(pyav.error)),
        "CUDA libraries": cuda_libraries(probes["cuda_libraries"], driver),
        "Paddle": paddle_build(paddle, driver),
        "GPU": gpu(driver),
        "NVDEC": nvdec(driver, decoder),
        "curves": _curves(),
        "archives": _archives(),
    }
    checks = tuple(_checks(findings))
    missing = any(check.state == "missing" for check in checks)
    device = "" if missing else "gpu" if paddle.facts.get("gpus") else "cpu"
    return Diagnosis(checks, device, driver, decoder)


def _checks(findings: Mapping[str, Finding]) -> Iterator[Check]:
    # No wheel of these can be installed on such a system, so that no line of pip would help.
    by_system = {"PyAV", "DALI"} if findings["system"][0] != "ok" else set()
    for name, (state, found, to_do) in findings.items():
        yield Check(name, state, found, findings["system"][2] if name in by_system and state == "missing" else to_do)


def as_json(diagnosis: Diagnosis) -> Facts:
    """The diagnosis as JSON values."""
    return {"version": __version__, "exit_code": diagnosis.exit_code, **asdict(diagnosis)}


def as_text(diagnosis: Diagnosis, encoding: str | None = "utf-8") -> str:
    """The diagnosis as an aligned table with a conclusion below it, in characters that `encoding` has."""
    encoding = encoding or "ascii"
    arrow = "\u2192" if "\u2192".encode(encoding, "ignore") else "->"
    indent = " " * (11 + max(len(check.name) for check in diagnosis.checks))
    lines: list[str] = []
    said: set[str] = set()
    for check in diagnosis.checks:
        text = f"{check.state:9}{check.name}".ljust(len(indent)) + check.found
        lines += textwrap.wrap(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        # Not wrapped, because it may be a command that the user copies.
        # What mends several checks is said once.
        to_do = [line for line in check.to_do.splitlines() if line not in said]
        lines += [f"{indent}{arrow} {line}" for line in to_do]
        said.update(to_do)
    missing = ", ".join(check.name for check in diagnosis.checks if check.state == "missing")
    device = diagnosis.device.upper()
    lines += ["", f"This machine can train on the {device}." if device else f"Missing for training: {missing}."]
    return "\n".join(lines).encode(encoding, "replace").decode(encoding)


def glibc_version() -> str:
    """The version of the system's C library, such as "2.36"; empty if it is not glibc."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    except (ValueError, OSError):
        return ""


def _system(glibc: str) -> Finding:
    found = ", ".join(filter(None, (platform.platform(), container())))
    if glibc and version_numbers(glibc) < LEAST_GLIBC:
        least = ".".join(str(number) for number in LEAST_GLIBC)
        return "warning", f"{found}, glibc {glibc}: the wheels of PyAV and DALI need {least} or later", old_glibc()
    return "ok", found, ""


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


def _open_files(cpus: int) -> Finding:
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
    if version_numbers(version) < version_numbers(least):
        return f"{name} {version} is older than {least}"
    if below and version_numbers(version) >= version_numbers(below):
        return f"{name} {version} is too new: expected a version below {below}"
    return ""


def _packages(probe: Probe, paddle: Probe) -> Finding:
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
    if version.startswith("2.") and version_numbers(installed_version("numpy")) >= (2,):
        found = f"numpy {installed_version('numpy')}, but Paddle {version} was built for NumPy 1"
        return "missing" if paddle.error else "warning", found, "pip install 'numpy<2'"
    return "ok", found, ""


def _pyav(probe: Probe) -> Finding:
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


def _asked(probe: Probe) -> tuple[Driver, Decoder]:
    """The driver and the decoder that the probe found; each has a problem if the probe failed before it."""
    facts, problem, to_do = probe.facts, f"asking the driver failed: {probe.error}", "check whether nvidia-smi works"
    driver = Driver.from_json(facts["driver"]) if "driver" in facts else Driver("", (0, 0), (), problem, to_do)
    return driver, Decoder.from_json(facts["decoder"]) if "decoder" in facts else Decoder(0, (), problem, to_do)


def _archives() -> Finding:
    """Checks which archives `r3d-fast data download` can unpack."""
    if readers := describe_readers():
        return "ok", f"ZIP; RAR with {readers}", ""
    return "ok", "ZIP; no program that unpacks RAR, which `r3d-fast data download` needs", TO_DO


def _curves() -> Finding:
    """Names the installed programs that a run can write its curves for."""
    found = [f"{name} {version}" for name in _CURVES if (version := installed_version(name))]
    return "ok", ", ".join([*found, "report.html of a run"]), ""

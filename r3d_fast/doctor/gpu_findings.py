"""What the doctor finds of all that a GPU needs: DALI, Paddle with its libraries, the driver and its decoder."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from typing import Literal

from pipelines.machine.container import container, install_driver
from pipelines.machine.nvdec import DALI_CODECS, Decoder
from pipelines.machine.nvidia import Driver
from pipelines.machine.packages import installed_version, version_numbers
from r3d_fast.console import counted
from r3d_fast.doctor.known_errors import cause_of, old_glibc
from r3d_fast.doctor.probes import Facts, Probe

State = Literal["ok", "warning", "missing"]
Finding = tuple[State, str, str]  # (state, found, to_do) of a Check

_OVERWRITTEN = "these wheels overwrite each other's files: install only one of them"
_PADDLE_26 = (61, 70, 75, 80, 86)  # GPU architectures in the wheels of paddlepaddle-gpu 2.6
_OLDER_DALI = "pip install 'nvidia-dali-cuda110>=1.48'"  # the last for drivers before 525; from NVIDIA's own index
# Compute capabilities: the oldest of CUDA 13, and the oldest for which Paddle 2.6 has no code. Ada, 89, runs that of 86
_TURING, _HOPPER = 75, 90


def dali(probe: Probe, driver: Driver, *, without_pyav: bool) -> Finding:
    """Whether DALI is there, once, and fits the GPUs."""
    names = {str(wheel.metadata["Name"]).lower().replace("_", "-") for wheel in metadata.distributions()}
    builds = sorted(name for name in names if re.fullmatch(r"nvidia-dali(-nightly|-weekly)?-cuda\d{3}", name))
    change = f"pip uninstall -y {' '.join(builds)} && " * bool(builds) + _dali_line(driver)
    named = ", ".join(f"{name} {installed_version(name)}" for name in builds) or "DALI"
    untried = without_pyav and "version" in probe.facts
    if probe.error and not untried:
        to_do = old_glibc() if "GLIBC_" in probe.error else change
        return "missing", _trouble(named, bool(builds), probe.error), to_do
    codecs = "(not tried: no PyAV)" if untried else ", ".join(probe.facts["codecs"])
    found = f"{named}, CPU decoder: {codecs}" if codecs else f"{named}, no decoder that can select single frames"
    if len(builds) > 1:
        return "warning", f"{found}; {_OVERWRITTEN}", change
    if not codecs:
        return "warning", f"{found}: loader.decoder dali won't work", f"pip install --upgrade {' '.join(builds)}"
    if builds and (misfit := driver.misfit(int(builds[0][-3:-1]))):
        to_do = change if driver.cuda >= (11, 0) else install_driver("450")
        return "warning", f"{found}; it can't use this GPU: {misfit}", to_do
    return "ok", found, ""


def cuda_libraries(probe: Probe, driver: Driver) -> Finding:
    """Whether Paddle 2.6 finds the libraries that it loads, in versions that it was built for."""
    if not probe.facts.get("needed"):
        return "ok", "not needed: no Paddle 2.6 for GPUs is installed", ""
    state: State = "missing" if driver.gpus else "warning"
    if probe.error:
        return state, f"trying them failed: {probe.error}", probe.facts["to_do"]
    wrong = {found["name"]: found for found in probe.facts["libraries"] if found["problem"]}
    absent = [name for name, found in wrong.items() if found["problem"] == "not found"]
    said = [f"not found: {', '.join(absent)}"] if absent else []
    said += [
        f"{name}: {found['problem']}" + f" ({found['file']})" * bool(found["file"])
        for name, found in wrong.items()
        if name not in absent
    ]
    if said:
        return state, "; ".join(said), probe.facts["to_do"]
    there = (f"{found['name'][3:-3]} {found['version']}" for found in probe.facts["libraries"])
    if changed := probe.facts["changed"]:
        line = " ".join(f"{wheel}=={version}" for wheel, version in changed.items())
        overwritten = f"another wheel has overwritten files of {', '.join(changed)}"
        return "warning", overwritten, f"pip install --force-reinstall --no-deps {line}"
    return "ok", ", ".join(there), ""


def paddle_build(probe: Probe, driver: Driver) -> Finding:
    """Whether Paddle is there, once, fits the GPUs, and computes."""
    wheels = [name for name in ("paddlepaddle", "paddlepaddle-gpu") if installed_version(name)]
    named = ", ".join(f"{name} {installed_version(name)}" for name in wheels) or "Paddle"
    facts = probe.facts
    new_enough = (0, 0) < version_numbers(facts.get("cuda", ""))[:2] <= driver.cuda
    cause = cause_of(probe.error, new_enough=new_enough)
    change = f"pip uninstall -y {' '.join(wheels)} && " * bool(wheels) + _paddle_line(driver)
    if "version" not in facts:
        return "missing", _trouble(named, bool(wheels), probe.error), cause.to_do if cause else change
    build = f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}" if facts["cuda"] else "CPU build"
    found = ", ".join([named, build, *(f"sm_{arch}" for arch in facts["archs"])])
    misfit, refit = _paddle_misfit(facts, driver), change
    if misfit.startswith("it needs") and driver.cuda < (11, 0):
        refit = install_driver("450")
    if probe.error:
        found = f"{found}; a 3D convolution fails"
        if cause and not misfit:
            return "missing", f"{found}: {cause.meaning}: {probe.error}", cause.to_do
        spare = "\nor train on the CPU: -o train.device=cpu" if facts.get("gpus") else ""
        return "missing", f"{found}: {misfit or probe.error}", refit + spare
    if len(wheels) > 1:
        return "warning", f"{found}; {_OVERWRITTEN}", change
    if driver.gpus and not facts["gpus"]:
        unseen = None if misfit else cause_of(facts.get("unseen", ""), new_enough=new_enough)
        why = misfit or (unseen.meaning if unseen else facts.get("unseen", ""))
        return "warning", f"{found}, can't use the GPU{why and ': ' + why}", unseen.to_do if unseen else refit
    return "ok", f"{found}, computes on the {'GPU' if facts['gpus'] else 'CPU'}", ""


def gpu(driver: Driver) -> Finding:
    """Which GPUs the driver has, or why it has none."""
    version = f"driver {driver.version or 'of unknown version'}, CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.gpus:
        gpus = (f"{gpu.name} (sm_{gpu.arch}, {gpu.memory_mib / 1024:.0f} GiB)" for gpu in driver.gpus)
        return "ok", f"{', '.join(gpus)}; {version}", ""
    if driver.to_do:
        return "warning", f"{driver.problem}: everything runs on the CPU", driver.to_do
    return "ok", "no NVIDIA driver: everything runs on the CPU", ""


def nvdec(driver: Driver, decoder: Decoder) -> Finding:
    """What the decoder of the GPU takes, or why it can't be used."""
    if not driver.gpus:
        return "ok", "no GPU: videos are decoded on the CPU", ""
    if not decoder.caps:
        said = f" (NVIDIA_DRIVER_CAPABILITIES={os.environ.get('NVIDIA_DRIVER_CAPABILITIES', '')})" * bool(container())
        slices = "sudo nvidia-smi mig -lgip   # a slice with DEC has a decoder; with another the CPU decodes"
        to_do = decoder.to_do or (slices if any(" MIG " in gpu.name for gpu in driver.gpus) else "")
        return "warning", f"{decoder.problem}{said}: videos are decoded on the CPU", to_do
    depths: dict[str, int] = {}
    for caps in decoder.caps:
        if caps.codec in DALI_CODECS:
            depths[caps.codec] = max(caps.bit_depth, depths.get(caps.codec, 0))
    engines = max(caps.engines for caps in decoder.caps)
    counts = f"{counted(engines, 'engine')}: " if engines else ""
    codecs = ", ".join(f"{codec} {depth} bit" for codec, depth in depths.items())
    return "ok", f"{counts}{codecs or 'no codec that DALI can use'}; other videos are decoded on the CPU", ""


def _trouble(named: str, installed: bool, error: str) -> str:
    """What is wrong with a library that could not be imported or used."""
    return "not installed" if not installed and "ModuleNotFound" in error else f"{named} can't be used: {error}"


def _dali_line(driver: Driver) -> str:
    """How to install the DALI that fits the GPUs, or the CPU if there are none."""
    if not driver.gpus:
        return "pip install 'r3d-fast[cpu]'"
    if driver.cuda < (12, 0):
        return _OLDER_DALI
    return f"pip install 'r3d-fast[{'cuda12' if min(gpu.arch for gpu in driver.gpus) >= _TURING else 'cuda11'}]'"


def _paddle_line(driver: Driver) -> str:
    """How to install the Paddle that fits the GPUs, or the CPU if there are none."""
    if not driver.gpus:
        return "pip install 'r3d-fast[cpu]'"
    archs = [gpu.arch for gpu in driver.gpus]
    if driver.cuda >= (12, 0) and min(archs) >= _TURING:
        return "pip install paddlepaddle-gpu -i INDEX   # with the INDEX for CUDA 12, as Paddle's own site says"
    if max(archs) >= _HOPPER:
        return install_driver("525")
    python = "   # in a Python of 3.12 or older" if sys.version_info >= (3, 13) else ""
    return f"pip install 'r3d-fast[cuda11]'{python}"


def _paddle_misfit(facts: Facts, driver: Driver) -> str:
    """Why a GPU build can't run on the GPUs, judged by versions and architectures; empty if nothing is known."""
    archs = facts["archs"] or (_PADDLE_26 if facts["version"].startswith("2.6") else ())
    return driver.misfit(version_numbers(facts["cuda"])[0], archs) if facts["cuda"] else ""

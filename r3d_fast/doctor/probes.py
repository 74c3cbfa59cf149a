"""The probes of the doctor: each tries a library in a process of its own, because it may crash, hang or be missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from pipelines.machine.cuda_libraries import LIBRARIES, changed_wheels, find, needing_paddle
from pipelines.machine.nvdec import probe_decoder
from pipelines.machine.nvidia import probe_driver
from r3d_fast.backend.restart import how_to_find
from r3d_fast.doctor.known_errors import cause_of

Facts = dict[str, Any]

_MARK = "r3d-fast doctor: "  # begins each line of a probe, because the libraries print lines too
# By codec, the decoders of which PyAV needs one. FFmpeg's own "av1" is not among them, because it needs a GPU.
DECODERS = {"mpeg4": {"mpeg4"}, "h264": {"h264"}, "hevc": {"hevc"}, "vp9": {"vp9"}, "av1": {"libdav1d", "libaom-av1"}}


@dataclass(frozen=True)
class Probe:
    """What a probe found out before it ended, and the error that ended it, empty if there was none."""

    facts: Facts
    error: str


def run_probe(name: str, patience_seconds: float) -> Probe:
    """Run the probe `name` in a new Python process with the same import paths, and return what it found."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from r3d_fast.doctor.probes import probe; probe({name!r})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_seconds)
    except subprocess.TimeoutExpired as slow:
        return Probe(_said(slow.stdout), f"no answer within {patience_seconds:g} s")
    except OSError as failed:
        return Probe({}, f"no process could be started: {failed.strerror}")
    facts = _said(done.stdout)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = "\n".join(line for line in lines if cause_of(line)) or (lines[-1] if lines else "")
    died = f"its process ended with exit code {done.returncode}: {last}"
    if done.returncode < 0:
        ended = f"its process was ended by signal {-done.returncode}, {signal.strsignal(-done.returncode)}"
        died = f"{ended}: {last}" if cause_of(last) else ended
    return Probe(facts, facts.pop("error", textwrap.shorten(died, 600).rstrip(": ")))


def _said(output: bytes | None) -> Facts:
    """The facts that a probe printed, among other lines of its output."""
    lines = (output or b"").decode(errors="replace").splitlines()
    said = (json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK))
    return {key: value for facts in said for key, value in facts.items()}


def _say(**facts: Any) -> None:
    """Print facts for `_said`, at once, because the process may crash in the next step."""
    print(f"\n{_MARK}{json.dumps(facts)}", flush=True)


def probe(name: str) -> None:
    """Run the probe `name` in this process, which it may crash, and print what it finds, at last the error or ""."""
    problem = ""
    try:
        PROBES[name]()
    except Exception as error:
        problem = _shortened(error)
    _say(error=problem)


def _shortened(error: Exception) -> str:
    """The type and the text of an error in one line, from where Paddle has the text behind its call stacks."""
    text = str(error).rpartition("Error Message Summary:")[2].lstrip("-\n ")
    return textwrap.shorten(f"{type(error).__name__}: {text}", 300)


def _try_packages() -> None:
    for name in ("numpy", "pydantic", "rich", "safetensors", "yaml"):
        import_module(name)


def _try_av() -> None:
    import av

    decoders = [codec for codec, names in DECODERS.items() if names & av.codec.codecs_available]
    _say(version=av.__version__, decoders=decoders)


def _try_dali() -> None:
    import nvidia.dali.fn

    _say(version=nvidia.dali.__version__)
    from pipelines.dali.versions import cpu_video_codecs  # imports PyAV too

    _say(codecs=sorted(cpu_video_codecs()))


def _try_paddle() -> None:
    import paddle

    cuda = str(paddle.version.cuda()) if paddle.is_compiled_with_cuda() else ""
    archs = [int(arch) for arch in getattr(paddle.version, "cuda_archs", list)() or ()]
    _say(version=paddle.__version__, cuda=cuda, cudnn=str(paddle.version.cudnn()), archs=archs)
    gpus = paddle.device.cuda.device_count() if cuda else 0
    _say(gpus=gpus)
    if cuda and not gpus:
        _say(unseen=_why_no_gpu(paddle))
    # Only a computation shows whether this build has code for the GPU.
    cube = paddle.ones([1, 1, 3, 3, 3])
    total = float(paddle.nn.functional.conv3d(cube, cube).numpy().sum())
    if total != 27.0:
        raise RuntimeError(f"over ones it gives {total}, not 27")


def _why_no_gpu(paddle: ModuleType) -> str:
    """What CUDA says to Paddle, which itself only counts no GPU."""
    try:
        paddle.base.core.get_cuda_current_device_id()
    except Exception as error:
        return _shortened(error)
    return ""


def _try_cuda_libraries() -> None:
    needed = needing_paddle()
    _say(needed=needed)
    if needed:
        _say(to_do=how_to_find())
        _say(libraries=[asdict(find(library)) for library in LIBRARIES], changed=changed_wheels())


def _try_driver() -> None:
    _say(driver=asdict(probe_driver()))
    _say(decoder=asdict(probe_decoder()))


PROBES = {
    "paddle": _try_paddle,
    "dali": _try_dali,
    "packages": _try_packages,
    "av": _try_av,
    "driver": _try_driver,
    "cuda_libraries": _try_cuda_libraries,
}

"""The ONNX file of an exported model: paddle2onnx writes it, onnxruntime runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem
from pipelines.machine.packages import installed_version
from pipelines.output.temporary import temporary_folder
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.export.manifest import FEATURES, INPUT, LOGITS
from r3d_fast.export.onnx_conversion import OPSET
from r3d_fast.export.parity import Run

_PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")
_PATIENCE = 600.0  # seconds; the largest model takes about 10 s
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_COMPLAINT = re.compile(r"Error: |[Uu]nsupported|not supported")


def require_onnx() -> None:
    """Raise EnvironmentProblem, with the command that installs it, if a package that ONNX needs is missing."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"--onnx: {', '.join(missing)} not installed; pip install 'r3d-fast[onnx]', or leave --onnx out"
        )


def write_onnx(program: Path, parameters: Path, out: Path) -> None:
    """Convert a static float32 model to the ONNX file `out`: opset OPSET, any batch size, the names of r3d_fast.json.

    Raises EnvironmentProblem, with operators and versions, where paddle2onnx can't convert the model.
    """
    command = [
        sys.executable,
        "-m",
        "r3d_fast.export.onnx_conversion",
        program,
        parameters,
        out,
        INPUT,
        LOGITS,
        FEATURES,
    ]
    with temporary_folder() as folder:
        try:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, errors="replace", timeout=_PATIENCE,
                check=False, env={**os.environ, "TMPDIR": str(folder)},  # paddle2onnx leaves a copy there if it aborts
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EnvironmentProblem(
                f"--onnx: paddle2onnx took more than {_PATIENCE:.0f} s{_versions()}; use other versions, or leave "
                "--onnx out. Nothing was written"
            ) from error
    if done.returncode or not out.is_file():
        raise EnvironmentProblem(
            f"--onnx: paddle2onnx can't convert this model: {_reason(done.stderr + done.stdout, done.returncode)}"
            f"{_versions()}; use other versions, or leave --onnx out. Nothing was written"
        )


def open_onnx(path: Path) -> tuple[Run, str]:
    """(function from clips to (logits, features), name of the engine) of an ONNX file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about each tensor that it removes
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(clips: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        logits, features = session.run([LOGITS, FEATURES], {INPUT: clips})
        return logits, features

    return run, f"onnxruntime {onnxruntime.__version__}"


def _reason(output: str, code: int) -> str:
    """Why the conversion failed, in one line, from the converter's output and exit code.

    paddle2onnx 2.1 does not name the operator that it can't convert: the line then lists all operators of the model.
    """
    lines = [re.sub(r"^(\[\w+\])+ *", "", line.strip()) for line in _COLOURS.sub("", output).splitlines()]
    for line in lines:
        if found := re.search(r"operators not supported.*including ([\w, ]+)", line):  # 1.3
            return f"operators not supported: {found[1].strip(', ')}"
    wrong = [line for line in lines if _COMPLAINT.search(line)]
    reason = wrong[0] if wrong else f"it ended with code {code}"
    operators = sorted(set(re.findall(r'"pd_op\.(\w+)"', output)) - {"data", "feed", "fetch"})
    return reason + (f" [operators of the model: {', '.join(operators)}]" if operators else "")


def _versions() -> str:
    found = [f"{name} {installed_version(name)}".strip() for name in ("paddle2onnx", "onnx")]
    return f" ({', '.join(found)}, Paddle {import_paddle().__version__}, opset {OPSET})"

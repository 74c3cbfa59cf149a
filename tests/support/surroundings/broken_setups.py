"""Sets up what tests/golden/broken_setups.json describes, and has the doctor look at it.

Each entry has an `origin`: "recorded" (what the real wheel of Paddle said here), "issue" (what its users reported), or
"made". `driver` is a stand-in for the driver's libraries (null: none), `installed` the packages, `paddle` how the
stand-in for Paddle behaves. `check` is the check that finds it, `found` a part of what it says, and `remedy` has the
lines that mend it: no other check may say anything else.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from cuda_wheels import environment, installed, library, wheels
from stand_ins import NVML, cuda, cuvid
from stand_ins import library as compiled

from pipelines.machine.cuda_libraries import LIBRARIES

SETUPS: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[2] / "golden" / "broken_setups.json").read_text(encoding="utf-8")
)
_PADDLE = """
import json, os, sys
from pathlib import Path
import numpy
_IS = json.loads(Path(__file__).with_name("behaviour.json").read_text())
if "imports" in _IS:
    raise ImportError(_IS["imports"])
__version__ = _IS["version"]
class version:
    cuda, cudnn = staticmethod(lambda: _IS["cuda"]), staticmethod(lambda: "8.6.0")
    cuda_archs = staticmethod(lambda: _IS["archs"])
class device:
    class cuda:
        device_count = staticmethod(lambda: _IS["gpus"])
def is_compiled_with_cuda(): return bool(_IS["cuda"])
class base:
    class core:
        @staticmethod
        def get_cuda_current_device_id():
            raise OSError(_IS.get("unseen", ""))
class ones:
    def __init__(self, shape): pass
    def numpy(self): return numpy.array([27.0])
class nn:
    class functional:
        @staticmethod
        def conv3d(x, weight):
            if "raises" in _IS:
                raise OSError(_IS["raises"])
            if "aborts" in _IS:
                print(_IS["aborts"], file=sys.stderr, flush=True)
                os.abort()
            return x
"""
# As much of DALI as the doctor tries.
_DALI = {
    "nvidia/dali": "__version__ = '2.4.0'",
    "nvidia/dali/fn": """
def external_source(**arguments): pass
class decoders:
    @staticmethod
    def video(encoded, frames, device): pass
""",
    "nvidia/dali/types": "UINT8 = 0",
    "nvidia/dali/pipeline": """
import numpy
class Pipeline:
    def __init__(self, **options): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def set_outputs(self, frames): pass
    def build(self): pass
    def run(self): return [self]
    def at(self, index): return numpy.zeros((1, 16, 16, 3))
""",
}
_EXAMINE = """
import json
from r3d_fast.doctor.doctor import as_json, as_text, examine
found = examine()
print(json.dumps([as_json(found), as_text(found)]))
"""


def examined(setup: dict[str, Any], folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    """(the checks by name, the text) of a doctor that looks at `setup`, made in `folder`."""
    packages = folder / "packages"
    for name, version in setup["installed"].items():
        installed(packages, name, version)
    version = next(version for name, version in setup["installed"].items() if name.startswith("paddle"))
    behaviour = {"version": version, "cuda": "11.8", "archs": [], "gpus": 0, **setup["paddle"]}
    installed(packages, "numpy", "1.26.4")
    for module, text in {"paddle": _PADDLE, **_DALI}.items():
        (packages / module).mkdir(parents=True, exist_ok=True)
        (packages / module / "__init__.py").write_text(text, encoding="utf-8")
    (packages / "paddle" / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")
    searched = _libraries(setup["libraries"], folder, packages)
    if setup["driver"] is not None:
        _driver(setup["driver"], folder / "driver")
        searched = [folder / "driver", *searched]
    variables = {"LD_LIBRARY_PATH": ":".join(map(str, searched)), **setup.get("environment", {})}
    kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
    command = [environment(folder / "venv", packages), "-c", _EXAMINE]
    done = subprocess.run(command, env={**kept, **variables}, capture_output=True, text=True, check=True)
    report, text = json.loads(done.stdout)
    return {check["name"]: check for check in report["checks"]}, text


def _driver(about: dict[str, Any], folder: Path) -> None:
    if about.get("nvml"):
        compiled(folder, "libnvidia-ml.so.1", NVML)
        return
    figures = {key: about[key] for key in ("name", "arch", "version", "init") if key in about}
    cuda(folder, *about.get("flags", []), **figures)
    if about.get("nvdec") != "none":
        cuvid(folder, *(["-DNO_ENGINE"] if about.get("nvdec") == "empty" else []))


def _libraries(which: str, folder: Path, packages: Path) -> list[Path]:
    """Make the libraries of Paddle 2.6; gives the folders in which they are found."""
    if which == "wheels, not found":
        wheels(packages)
        return []
    found = folder / "libraries"
    if which == "overwritten":
        wheels(packages)
        with library(packages / "nvidia/cudnn/lib/libcudnn.so.8", LIBRARIES[0]).open("ab") as file:
            file.write(b"more")
    majors = {"cuDNN 9": {"libcudnn.so": 9}, "cuBLAS 12": {"libcublas.so": 12}}.get(which, {})
    if which != "none":
        for of in LIBRARIES:
            if which != f"all but {of.name}":
                library(found / of.name, of, majors.get(of.name))
    return [found]

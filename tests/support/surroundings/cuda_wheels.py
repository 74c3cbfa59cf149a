"""Makes environments with stand-ins for the wheels of Paddle 2.6 for GPUs and of its libraries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipelines.machine.cuda_libraries import LIBRARIES, Library

REPO = Path(__file__).resolve().parents[3]
_CODE = """
static const int version[] = {%d, 9, 6};
int %sGetProperty(int what, int *value) { *value = version[what]; return 0; }
int nvrtcVersion(int *major, int *minor) { *major = version[0]; *minor = version[1]; return 0; }
int ncclGetVersion(int *value) { *value = version[0] * 10000 + 906; return 0; }
"""


def library(place: Path, of: Library, major: int | None = None) -> Path:
    """A library at `place` which tells that it is `of`, in version MAJOR.9.6 (default: the one that Paddle needs)."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a stand-in for a CUDA library")
    place.parent.mkdir(parents=True, exist_ok=True)
    code = _CODE % (of.major if major is None else major, of.function.removesuffix("GetProperty"))
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(place), f"-Wl,-soname,{place.name}"]
    subprocess.run(command, input=code.encode(), check=True)
    return place


def installed(folder: Path, name: str, version: str, files: Mapping[str, int] | None = None) -> None:
    """Write into `folder` that `name` is installed in `version`, with `files` and their sizes in bytes."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"{path},,{size}" for path, size in (files or {}).items()]
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n", encoding="utf-8")


def wheels(folder: Path, leave_out: str = "") -> Path:
    """`folder`, in which all wheels with the libraries of Paddle 2.6 are installed, but for `leave_out`."""
    files: dict[str, dict[str, int]] = {}
    for of in LIBRARIES:
        if of.wheel != leave_out:
            kind = of.wheel.removeprefix("nvidia-").removesuffix("-cu11").replace("-", "_")
            path = library(folder / "nvidia" / kind / "lib" / f"{of.name}.{of.major}", of)
            files.setdefault(of.wheel, {})[str(path.relative_to(folder))] = path.stat().st_size
    for wheel, held in files.items():
        installed(folder, wheel, "11.0", held)
    return folder


def environment(folder: Path, *packages: Path) -> Path:
    """The Python of a new environment at `folder`, with `packages`, and what is installed here but Paddle and DALI.

    What `packages` say of the version of a package counts.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    told = {path.name.partition("-")[0] for folder in packages for path in folder.glob("*.dist-info")}
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        other = path.suffix == ".dist-info" and path.name.partition("-")[0] in told
        if not other and not path.name.startswith(("paddle", "nvidia", "__editable__", "__pycache__", "_virtualenv")):
            (own / path.name).symlink_to(path)
    (own / "packages.pth").write_text("".join(f"{line}\n" for line in [*packages, REPO]), encoding="utf-8")
    return folder / "bin" / "python"

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest
import tiny
from packaging.requirements import Requirement
from stand_ins import REAL_DRIVER, REPO, cuda, cuvid, python

from pipelines.machine.cuda_libraries import needing_paddle
from r3d_fast.cli import run_cli
from r3d_fast.doctor.doctor import Diagnosis, as_json, as_text, examine, glibc_version
from r3d_fast.doctor.known_errors import old_glibc
from r3d_fast.download.rar_readers import LIBRARY, TO_DO, rar_readers

NO_RAR = "ZIP; no program that unpacks RAR, which `r3d-fast data download` needs"
EXAMINE = """
import json, sys
from r3d_fast.doctor.doctor import as_json, as_text, examine
found = examine(patience_seconds=float(sys.argv[1]))
print(json.dumps([as_json(found), as_text(found)]))
sys.exit(found.exit_code)
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


def doctor(
    *paths: Path,
    libraries: Path | None = None,
    patience: float = 60.0,
    isolated: Path | None = None,
    first: str = "",
) -> tuple[dict[str, dict[str, str]], str, int]:
    """(check by name, text, exit code) of a doctor with `paths` first; `isolated`: and nothing but what lies there.

    `first` is code that its process runs before it.
    """
    code = f"\n{first}\n{EXAMINE}"
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
    names, todo = set[str](), ["r3d-fast"]
    while todo:
        needs = map(Requirement, metadata.requires(todo.pop()) or [])
        found = {need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
        todo += found - names - {"av"}
        names |= found - {"av"}
    for name in names:
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
    assert checks["curves"]["found"] == "report.html of a run"
    tools = [tool for tool in rar_readers() if tool != LIBRARY]  # the system's are there all the same
    assert checks["archives"]["found"] == (f"ZIP; RAR with {', '.join(tools)}" if tools else NO_RAR)
    assert checks["archives"]["to_do"] == ("" if tools else TO_DO)


def test_archives_are_looked_at_without_rarfile_too(bare: Path, tmp_path: Path) -> None:
    for path in bare.iterdir():
        if not path.name.startswith("rarfile"):
            (tmp_path / path.name).symlink_to(path.resolve())
    checks, _, code = doctor(isolated=tmp_path)
    assert code == 4
    tools = [tool for tool in rar_readers() if tool != LIBRARY]
    assert checks["archives"]["found"] == (f"ZIP; RAR with {', '.join(tools)}" if tools else NO_RAR)


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


@pytest.mark.parametrize(
    ("version", "problem"), [("19.0.2", "too new: expected a version below 19"), ("17.0.1", "older")]
)
def test_a_pyav_of_another_version_is_replaced_by_one_that_fits(version: str, problem: str, tmp_path: Path) -> None:
    fake(tmp_path, "av", "", f"av-{version}")
    (tmp_path / "r3d_fast-0.dist-info").mkdir()
    needs = "Metadata-Version: 2.1\nName: r3d-fast\nVersion: 0\nRequires-Dist: av<19,>=18.1\n"
    (tmp_path / "r3d_fast-0.dist-info" / "METADATA").write_text(needs, encoding="utf-8")
    checks, _, code = doctor(tmp_path)
    assert code == 4
    assert checks["PyAV"]["found"].startswith(f"av {version} is {problem}")
    assert checks["PyAV"]["to_do"] == "pip install --upgrade 'av>=18.1,<19'"


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
    # The GPU wheel of Paddle 2.6 does not find its libraries in a program that is not r3d-fast's.
    assert code == (4 if needing_paddle() else 0)
    assert checks["GPU"]["found"] == "Tesla V100 (sm_70, 16 GiB); driver 550.54.15, CUDA up to 12.4"
    assert checks["NVDEC"]["found"] == (
        "1 engine: mpeg4 8 bit, h264 8 bit, hevc 12 bit, vp9 12 bit; other videos are decoded on the CPU"
    )
    if "CPU build" in checks["Paddle"]["found"]:
        assert (checks["Paddle"]["state"], text.splitlines()[-1]) == ("warning", "This machine can train on the CPU.")
        assert "pip install 'r3d-fast[cuda11]'" in checks["Paddle"]["to_do"]
    if "cuda130" in checks["DALI"]["found"]:
        assert "no code for Tesla V100 (sm_70) in it: CUDA 13 begins with sm_75" in checks["DALI"]["found"]
        assert checks["DALI"]["to_do"] == "pip uninstall -y nvidia-dali-cuda130 && pip install 'r3d-fast[cuda11]'"


def test_paddle_that_fits_and_paddle_that_has_no_code_for_the_card(v100: Path, bare: Path, tmp_path: Path) -> None:
    for name in ("fits", "fails"):
        fake(tmp_path / name, "nvidia.dali", "__version__ = '1.40.0'", "nvidia-dali-cuda120-1.40.0")
        fake(tmp_path / name, "nvidia.dali.fn", "")
    fake(tmp_path / "fits", "paddle", PADDLE % "", "paddlepaddle-gpu-2.6.2")
    fake(tmp_path / "fails", "paddle", PADDLE % NO_KERNEL, "paddlepaddle-gpu-2.6.2")
    checks, _, _ = doctor(tmp_path / "fits", libraries=v100, isolated=bare)
    assert (checks["Paddle"]["state"], checks["Paddle"]["to_do"]) == ("ok", "")
    assert "CUDA 11.8, cuDNN 8.6.0, computes on the GPU" in checks["Paddle"]["found"]
    if not metadata.version("numpy").startswith("1."):
        assert (checks["packages"]["state"], checks["packages"]["to_do"]) == ("warning", "pip install 'numpy<2'")

    cuda(tmp_path / "h100", name="H100", arch=90, version=13000)
    checks, _, code = doctor(tmp_path / "fails", libraries=tmp_path / "h100", isolated=bare)
    assert code == 4
    assert "a 3D convolution fails: no code for H100 (sm_90) in it" in checks["Paddle"]["found"]
    assert "as Paddle's own site says" in checks["Paddle"]["to_do"]
    assert checks["Paddle"]["to_do"].endswith("or train on the CPU: -o train.device=cpu")
    assert checks["NVDEC"]["state"] == "warning"


def test_code_for_an_older_card_of_the_same_generation(bare: Path, tmp_path: Path) -> None:
    """Paddle 2.6 has code for sm_86, which an L4 runs."""
    fake(tmp_path / "packages", "paddle", PADDLE % "", "paddlepaddle-gpu-2.6.2")
    cuda(tmp_path / "l4", name="NVIDIA L4", arch=89)
    checks, _, _ = doctor(tmp_path / "packages", libraries=tmp_path / "l4", isolated=bare)
    assert (checks["Paddle"]["state"], checks["Paddle"]["to_do"]) == ("ok", "")


def test_a_decoder_library_that_crashes(v100: Path, tmp_path: Path) -> None:
    fake(tmp_path, "paddle", PADDLE % "")
    cuda(tmp_path / "libraries")
    cuvid(tmp_path / "libraries", "-DCRASH")
    checks, _, _ = doctor(tmp_path, libraries=tmp_path / "libraries")
    assert checks["GPU"]["state"] == "ok"
    assert "asking the driver failed: its process was ended by signal 6" in checks["NVDEC"]["found"]


def test_few_open_files() -> None:
    code = "import json; from r3d_fast.doctor.doctor import _open_files; print(json.dumps(_open_files(40)))"
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


def test_a_system_that_is_too_old_for_the_wheels(bare: Path) -> None:
    """A stand-in for the version of glibc; without PyAV and DALI, which pip can't install there."""
    code = "import r3d_fast.doctor.doctor as it; it.glibc_version = lambda: '2.27'"
    checks, text, exit_code = doctor(isolated=bare, first=code)
    assert exit_code == 4
    assert checks["system"]["state"] == "warning"
    assert checks["system"]["found"].endswith("glibc 2.27: the wheels of PyAV and DALI need 2.28 or later")
    for name in ("system", "PyAV", "DALI"):
        assert checks[name]["to_do"] == old_glibc()
    assert text.count(old_glibc()) == 1
    assert (REPO / old_glibc().split()[3]).is_file()


def test_the_glibc_of_this_system(here: Diagnosis) -> None:
    if sys.platform == "linux" and glibc_version():
        assert re.fullmatch(r"2\.\d+", glibc_version())
        assert {check.name: check.state for check in here.checks}["system"] == "ok"


def test_json_goes_to_stdout_or_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "doctor.json"
    code, out, _ = tiny.said(capsys, "doctor", "--json", file)
    assert out.startswith("ok       Python")
    for arguments in (("--json",), ("--json", "-")):
        again, out, _ = tiny.said(capsys, "doctor", *arguments)
        assert again == code
        assert json.loads(out)["checks"][0] == json.loads(file.read_bytes())["checks"][0]

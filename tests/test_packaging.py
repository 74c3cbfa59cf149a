from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel of this repository holds."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools leaves its build folder beside the sources.
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPO / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, code: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_the_shipped_configs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import r3d_fast, pipelines, bench\n"
        "from r3d_fast.config.config import load_config\n"
        "print(r3d_fast.__file__, load_config('ucf101_r3d18').model.name)\n"
    )
    out = run(installed, code, tmp_path)
    assert str(installed) in out
    assert "r3d18_reference" in out
    places = installed / "r3d_fast" / "configs", REPO / "configs"
    here, there = ({path.relative_to(folder) for path in folder.rglob("*.yaml")} for folder in places)
    assert here == there
    assert not (installed / "tests").exists()


def test_the_wheel_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    make = ["data", "make-demo", "d", "--videos-per-class", "1", "--test-per-class", "1"]
    code = f"from r3d_fast.cli import main; main({make})"
    assert run(installed, code, tmp_path).strip() == "d"
    assert len(list((tmp_path / "d").rglob("*.avi"))) == 16
    code = "from r3d_fast.cli import main; main(['data', 'index', 'd', '--index', 'i'])"
    assert "videos   16 (8 test, 8 train)" in run(installed, code, tmp_path)


def test_both_commands_are_declared(installed: Path) -> None:
    (entry,) = installed.glob("r3d_fast-*.dist-info/entry_points.txt")
    text = entry.read_text(encoding="utf-8")
    assert re.search(r"^r3d-fast = r3d_fast.__main__:main$", text, re.M)
    assert re.search(r"^bench = bench.cli:main$", text, re.M)


def test_a_pyav_that_opens_files_in_another_way_is_not_installed(installed: Path) -> None:
    (metadata,) = installed.glob("r3d_fast-*.dist-info/METADATA")
    (wanted,) = re.findall(r"^Requires-Dist: av(.*)$", metadata.read_text(encoding="utf-8"), re.M)
    assert "18.1.0" in SpecifierSet(wanted)
    # 19.0 removed the argument metadata_errors of open(), without which a wrong byte in a title is an error.
    assert "19.0.0" not in SpecifierSet(wanted)

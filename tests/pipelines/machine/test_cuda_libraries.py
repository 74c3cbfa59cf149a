from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
from cuda_wheels import REPO, environment, installed, library, wheels

from pipelines.machine.cuda_libraries import LIBRARIES, WHEELS, find, folder_name, link_folder, needing_paddle

CUDNN = LIBRARIES[0]
FIND = """
import json
from dataclasses import asdict
from pathlib import Path
from pipelines.machine.cuda_libraries import LIBRARIES, find
print(json.dumps([asdict(find(library, Path("/nowhere"))) for library in LIBRARIES]))
"""
LINKS = """
import json, sys
from pipelines.machine.cuda_libraries import library_files, link_folder
files = library_files()
print(json.dumps([{name: str(path) for name, path in files.items()}, str(link_folder(files))]))
"""


def asked(python: Path | str, code: str, **variables: str) -> list:  # type: ignore[type-arg]
    clean = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run([python, "-c", code], env={**clean, **variables}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels(tmp_path_factory.mktemp("packages"))


def test_the_extra_for_a_v100_brings_each_library(tmp_path: Path) -> None:
    text = (REPO / "setup.cfg").read_text(encoding="utf-8")
    lines = text.partition("\ncuda11 =\n")[2].split("\n#")[0].splitlines()
    pins = dict(line.strip().partition("==")[::2] for line in lines if "==" in line)
    assert set(pins) == {"paddlepaddle-gpu", *WHEELS}
    assert pins["nvidia-cudnn-cu11"].startswith("8.9.")
    assert pins["nvidia-cublas-cu11"].startswith("11.11.")
    names = [line.strip() for line in lines]
    assert {"numpy<2", "nvidia-dali-cuda120>=1.53"} <= set(names)


def test_only_the_gpu_wheels_of_paddle_2_6_for_cuda_11_need_them(tmp_path: Path) -> None:
    for name, version, needs in (
        ("paddlepaddle", "2.6.2", ""),
        ("paddlepaddle-gpu", "3.3.1", ""),
        ("paddlepaddle-gpu", "2.6.2.post120", ""),
        ("paddlepaddle-gpu", "2.6.2.post117", "2.6.2.post117"),
        ("paddlepaddle-gpu", "2.6.2", "2.6.2"),
    ):
        installed(tmp_path / version / name, name, version)
        assert needing_paddle(["/nowhere", str(tmp_path / version / name)]) == needs


def test_what_the_loader_finds(packages: Path, tmp_path: Path) -> None:
    nothing = asked(sys.executable, FIND, LD_LIBRARY_PATH=str(tmp_path), PYTHONPATH=str(REPO))
    assert [found["name"] for found in nothing] == [library.name for library in LIBRARIES]
    for of in LIBRARIES:
        library(tmp_path / "libraries" / of.name, of, major=9 if of is CUDNN else None)
    (tmp_path / "libraries" / "libnccl.so").write_text("no library", encoding="utf-8")
    found = asked(sys.executable, FIND, LD_LIBRARY_PATH=str(tmp_path / "libraries"), PYTHONPATH=str(REPO))
    assert found[0]["problem"] == "version 9.9.6 instead of 8"
    assert found[0]["file"] == str(tmp_path / "libraries" / "libcudnn.so")
    assert [item["problem"] for item in found[1:-1]] == [""] * 7
    assert [item["version"] for item in found[1:-1]] == [
        *(f"{library.major}.9.6" for library in LIBRARIES[1:-2]),
        "11.9",
    ]
    assert found[-1]["problem"].startswith("can't be loaded: ")
    assert "file too short" in found[-1]["problem"]


def test_cudnn_of_a_toolkit_is_found_last(tmp_path: Path) -> None:
    if find(CUDNN, tmp_path).problem != "not found":
        pytest.skip("this machine has a cuDNN")
    library(tmp_path / "libcudnn.so", CUDNN, major=9)
    found = find(CUDNN, tmp_path)
    assert (found.version, found.problem) == ("9.9.6", "version 9.9.6 instead of 8")
    assert found.file == str(tmp_path / "libcudnn.so")


def test_links_to_the_files_of_the_wheels(packages: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", packages)
    with ThreadPoolExecutor(8) as pool:  # at the same time
        answers = list(pool.map(lambda _: asked(python, LINKS), range(8)))
    files, folder = answers[0]
    assert all(answer == answers[0] for answer in answers)
    assert Path(folder).parent == tmp_path / "venv" / "share" / "r3d-fast"
    there = {path.name: str(path.readlink()) for path in Path(folder).iterdir()}
    assert there == files
    names = {name for of in LIBRARIES for name in (of.name, f"{of.name}.{of.major}")}
    assert set(there) == names - {"libnccl.so.2"}
    found = asked(python, FIND, LD_LIBRARY_PATH=folder)
    assert [item["problem"] for item in found] == [""] * len(LIBRARIES)
    assert found[0]["file"] == str(packages / "nvidia/cudnn/lib/libcudnn.so.8")


def test_other_wheels_make_other_links(packages: Path, tmp_path: Path) -> None:
    files = {"libcudnn.so": packages / "a", "libcublas.so": packages / "b"}
    first = link_folder(files, prefix=str(tmp_path))
    second = link_folder({**files, "libcudnn.so": packages / "c"}, prefix=str(tmp_path))
    assert first is not None
    assert second is not None
    assert first != second
    assert (first / "libcudnn.so").readlink() == packages / "a"
    assert (second / "libcudnn.so").readlink() == packages / "c"


def test_what_others_put_there_is_not_followed(tmp_path: Path) -> None:
    files = {"libcudnn.so": tmp_path / "right"}
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def made() -> Path | None:
        return link_folder(files, prefix=str(tmp_path / "env"), environment=cache)

    folder = made()
    assert folder is not None
    # Other targets and files are replaced.
    (folder / "libcudnn.so").unlink()
    (folder / "libcudnn.so").symlink_to(tmp_path / "wrong")
    (folder / "libc.so.6").write_text("strange", encoding="utf-8")
    assert made() == folder
    assert {path.name: path.readlink() for path in folder.iterdir()} == files
    # The loader would prefer what lies in this folder.
    (folder / "glibc-hwcaps").mkdir()
    other = tmp_path / "cache" / "r3d-fast" / folder.name
    assert made() == other
    (folder / "glibc-hwcaps").rmdir()
    # A folder that others may write, and a link instead of a folder.
    folder.chmod(0o777)
    assert made() == other
    folder.chmod(0o755)
    assert made() == folder
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert made() == other
    # One of another user.
    if os.geteuid() == 0:
        folder.unlink()
        folder.mkdir()
        os.chown(folder, 12345, 12345)
        assert made() == other


def test_places_that_can_not_be_used(tmp_path: Path) -> None:
    files = {"libcudnn.so": tmp_path / "right"}
    (tmp_path / "file").touch()
    for wrong in (str(tmp_path / "file"), f"{tmp_path}/a:b", f"{tmp_path}/$LIB", "relative", ""):
        assert link_folder(files, prefix=wrong, environment={}) is None
        home = {"HOME": str(tmp_path / "home")}
        cached = tmp_path / "home" / ".cache" / "r3d-fast" / folder_name(files)
        assert link_folder(files, prefix=wrong, environment=home) == cached


@pytest.mark.skipif(needing_paddle() != "2.6.2", reason="needs the wheel of paddlepaddle-gpu 2.6.2")
def test_the_real_wheels_have_each_library() -> None:
    files, folder = asked(sys.executable, LINKS)
    assert {library.name for library in LIBRARIES} < set(files)
    found = asked(sys.executable, FIND, LD_LIBRARY_PATH=folder)
    assert {item["name"]: item["problem"] for item in found if item["problem"]} == {}
    versions = {item["name"]: item["version"] for item in found}
    assert versions["libcudnn.so"] == "8.9.6"
    assert versions["libcublas.so"] == "11.11.3"
    assert metadata.version("nvidia-nccl-cu11") == versions["libnccl.so"]
    # Each part of cuDNN is loaded on its first use, by its name with a version.
    parts = "adv_infer", "adv_train", "cnn_infer", "cnn_train", "ops_infer", "ops_train"
    load = f"import ctypes; print([ctypes.CDLL(f'libcudnn_{{part}}.so.8') and 1 for part in {parts}])"
    assert asked(sys.executable, load, LD_LIBRARY_PATH=folder) == [1] * len(parts)

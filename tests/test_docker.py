"""The Dockerfiles: what they copy, set and leave behind; and the image without a GPU, built without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import tiny
from images import Image, context, instructions
from pages import found_command

import bench.cli
from pipelines.machine.cuda_libraries import problems

REPO = Path(__file__).resolve().parent.parent
FILES = sorted((REPO / "docker").glob("Dockerfile.*"))
GPU_FILES = [path for path in FILES if path.suffix != ".cpu"]


def name(path: Path) -> str:
    return path.name


def values(path: Path, instruction: str) -> list[str]:
    return [value for key, value in instructions(path) if key == instruction]


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.suffix for path in FILES] == [".cpu", ".cuda12", ".v100"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_is_copied_is_in_the_checkout_and_reaches_the_build(path: Path) -> None:
    files = context(REPO)
    sources = [source for value in values(path, "COPY") for source in shlex.split(value)[:-1]]
    missing = [one for one in sources if not any(file == one or file.startswith(f"{one}/") for file in files)]
    assert missing == [], "not in the checkout, or .dockerignore keeps it from the build"
    setup = ConfigParser()
    setup.read(REPO / "setup.cfg", encoding="utf-8")
    folders = set(setup["options"]["package_dir"].split("=")[1].split())
    folders |= {package.partition(".")[0] for package in setup["options"]["packages"].split()}
    assert folders | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= set(sources)


def test_nothing_is_sent_to_a_build_that_no_image_copies() -> None:
    copied = {source for path in FILES for value in values(path, "COPY") for source in shlex.split(value)[:-1]}
    assert {file.partition("/")[0] for file in context(REPO)} == copied


def test_a_line_of_dockerignore_that_the_tests_do_not_know_is_told(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!bench\n*.png\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"\.dockerignore: \*\.png: expected"):
        context(tmp_path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_it_starts_r3d_fast_and_not_as_root(path: Path) -> None:
    stages = re.split(r"^FROM .*$", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    entries = [re.findall(r"^ENTRYPOINT (.*)$", stage, re.M) for stage in stages]
    assert json.loads(entries[-1][-1]) == ["r3d-fast"]
    users = [re.findall(r"^USER (.*)$", stage, re.M) for stage in stages]
    # A number, as Kubernetes' runAsNonRoot can't look up a name.
    assert all(int(those[-1]) > 0 for those in users if those)
    assert users[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_cache_is_left_and_each_base_has_a_version(path: Path) -> None:
    stages = {value.partition(" AS ")[2] for value in values(path, "FROM")}
    bases = [value.partition(" AS ")[0] for value in values(path, "FROM")]
    assert all(re.fullmatch(r"[a-z/]+:\d[\w.-]+", base) for base in bases if base not in stages)
    for line in values(path, "RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True)
        assert "pip install" not in line or "--no-cache-dir" in line
        if "apt-get" in line:
            assert line.endswith("rm -rf /var/lib/apt/lists/*")
            assert line.count("apt-get install") == line.count("--no-install-recommends")


@pytest.mark.parametrize("path", GPU_FILES, ids=name)
def test_the_decoder_reaches_the_container_and_its_tests_an_image_of_their_own(path: Path) -> None:
    assert any(
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in shlex.split(value) for value in values(path, "ENV")
    )
    assert [value.partition(" AS ")[2] for value in values(path, "FROM")] == ["base", "measure", ""]
    assert [json.loads(value) for value in values(path, "ENTRYPOINT")] == [["bench", "gpu"], ["r3d-fast"]]
    assert found_command(bench.cli.cli, ["gpu"])[0].name == "gpu"


def test_the_image_for_a_v100_installs_the_extra_without_what_its_base_has() -> None:
    setup = ConfigParser()
    setup.read(REPO / "setup.cfg", encoding="utf-8")
    extra = setup["options.extras_require"]["cuda11"].strip().splitlines()
    installed = next(line for line in values(REPO / "docker" / "Dockerfile.v100", "RUN") if "paddlepaddle-gpu" in line)
    # Its Python is 3.11, whose environments have setuptools.
    wanted = [line for line in extra if not re.match(r"nvidia-[a-z-]+-cu11==|setuptools;", line)]
    assert shlex.split(installed)[3:] == wanted
    (base,) = (value for value in values(REPO / "docker" / "Dockerfile.v100", "FROM") if value.startswith("nvidia/"))
    assert base == "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04 AS base"


def test_the_build_for_a_v100_ends_where_a_library_of_cuda_is_missing() -> None:
    (check,) = (line for line in values(REPO / "docker" / "Dockerfile.v100", "RUN") if "cuda_libraries" in line)
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(["sh", "-c", check], cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    missing = [found.name for found in problems()]  # on a machine with CUDA 11 there may be none
    assert done.returncode == (1 if missing else 0)
    assert all(f"name='{library}'" in done.stderr for library in missing)


def test_without_paddles_index_the_build_says_what_it_needs() -> None:
    (check,) = (line for line in values(REPO / "docker" / "Dockerfile.cuda12", "RUN") if line.startswith("test -n"))
    done = subprocess.run(["sh", "-c", check], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("PADDLE_INDEX is not set: build with --build-arg PADDLE_INDEX=ADDRESS")
    assert done.stderr.count("\n") == 1
    there = {"PADDLE_INDEX": "x"}
    assert subprocess.run(["sh", "-c", check], env=there, capture_output=True, check=True).stderr == b""


def can_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_image_without_a_gpu_builds_from_what_it_copies_and_trains(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("needs a superuser who can mount, as it builds in a chroot")
    image = Image(tmp_path / "image")
    image.give_python()
    image.build(REPO / "docker" / "Dockerfile.cpu", REPO)
    assert image.entry == ["r3d-fast"]

    def call(*arguments: str, user: str = "") -> str:
        done = image.run([*image.entry, *arguments], user)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    where = image.run(["python", "-c", "import r3d_fast; print(r3d_fast.__file__)"]).stdout
    assert where.startswith("/usr/local/lib/")
    assert "Train 3D ResNets" in call("--help")
    assert "CPU" in call("doctor")
    call("data", "make-demo", "d", "--videos-per-class", "1", "--test-per-class", "1")
    call("data", "index", "d")
    small = tiny.options([*tiny.OVERRIDES, "train.epochs=2", "data.root=d", "data.index=d.r3dindex"])
    assert "evaluate: r3d-fast eval" in call("train", "-c", "demo", *small, "--run", "run")
    # As `docker run --user` starts it for somebody whose files it is to write.
    assert "Train 3D" in call("--help", user="4242")
    call("data", "make-demo", "of-4242", "--videos-per-class", "1", "--test-per-class", "1", user="4242")

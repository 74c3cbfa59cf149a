"""The commands of `bench gpu`: each parses, and asks what the card can give."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from bench.cli import cli as bench_cli
from bench.gpu.plan import PERSISTENT, STEPS, V100, Card, GpuSettings, Part, check_steps, plan
from pipelines.errors import UsageError
from r3d_fast.cli import cli as r3d_fast_cli

REPO = Path(__file__).resolve().parents[3]


def parse(words: list[str]) -> None:
    """Raise what click raises for a command line, short of running it."""
    command: click.Command = {"bench": bench_cli, "r3d-fast": r3d_fast_cli}[words[0]]
    name, rest = words[0], words[1:]
    while isinstance(command, click.Group):
        name, *rest = rest
        assert name in command.commands, words
        command = command.commands[name]
    command.make_context(name, list(rest))


def test_every_command_parses_and_every_file_it_names_is_there(tmp_path: Path) -> None:
    (tmp_path / "UCF 101").mkdir()
    (tmp_path / "results").mkdir()
    settings = GpuSettings(tmp_path / "UCF 101", tmp_path, lists=tmp_path, split=2, full=True)
    parts = plan(settings, V100)
    assert list(dict.fromkeys(part.step for part in parts)) == list(STEPS)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        words = [word for word in shlex.split(part.shown) if not word.startswith(("R3D_", "FLAGS_"))]
        assert part.command[0] == sys.executable
        if words[0] in ("bench", "r3d-fast"):
            parse(words)
        elif words[2] == "pytest":
            assert all((REPO / word).exists() for word in words if word.startswith("tests/"))
            assert part.environment["R3D_REAL_CLIPS"] == str(settings.data)
            assert part.folder == REPO
        else:
            assert words[:2] == ["python", "-m"]
            assert (REPO / f"{words[2].replace('.', '/')}.py").is_file()
    index, train, _ = (part.shown for part in parts if part.step == "full")
    assert f"--lists {tmp_path} --split 2" in index
    assert "--resume auto" in train
    assert all(part.minutes for part in parts if part.step != "full")


def test_no_file_with_tests_of_a_gpu_is_forgotten() -> None:
    (part,) = plan(GpuSettings(Path("/data"), Path("/out"), steps=("tests",)), V100)
    asked = [REPO / word for word in part.command if word.startswith("tests/")]
    marks = re.compile(r"^@pytest\.mark\.gpu|marks=pytest\.mark\.gpu|^from devices import .*(DEVICES|DECODED)", re.M)
    marked = [path for path in (REPO / "tests").rglob("test_*.py") if marks.search(path.read_text(encoding="utf-8"))]
    forgotten = [path for path in marked if not any(path.is_relative_to(folder) for folder in asked)]
    assert len(marked) >= 7
    assert forgotten == []


@pytest.mark.parametrize(
    ("arch", "precisions"), [(61, {"fp32"}), (70, {"fp32", "fp16"}), (90, {"fp32", "fp16", "bf16"})]
)
def test_only_precisions_that_the_card_has_are_measured(arch: int, precisions: set[str]) -> None:
    _, *parts = plan(GpuSettings(Path("/data"), Path("/out"), steps=("train",)), Card("x", arch, 1))
    cases = {tuple(part.name.split("_")[1:]) for part in parts}
    best = "fp16" if arch >= 70 else "fp32"
    expected = {(name, layout) for name in precisions for layout in ("NCDHW", "NDHWC")}
    expected |= {(name, "NDHWC-padded") for name in precisions - {"fp32"}}
    assert cases == {*expected, (best, "NDHWC", "spin")}


def test_each_value_of_the_flag_has_a_process_of_its_own() -> None:
    parts = plan(GpuSettings(Path("/data"), Path("/out"), steps=("kernels",)), V100)
    assert [(part.name, part.environment[PERSISTENT]) for part in parts] == [
        ("kernels", "0"),
        ("kernels_persistent", "1"),
    ]


@pytest.mark.parametrize(("engines", "threads"), [(0, "1,2"), (1, "1,2"), (5, "5,10")])
def test_dalis_threads_follow_the_decoders_of_the_card(engines: int, threads: str) -> None:
    _, *parts = plan(GpuSettings(Path("/data"), Path("/out"), steps=("loader",)), Card("x", 80, engines))
    assert all(part.command[part.command.index("--threads") + 1] == threads for part in parts)
    assert [part.command[part.command.index("--batch-size") + 1] for part in parts] == ["64", "16"]


@pytest.mark.parametrize(
    ("videos", "batch"), [(1, 1), (2, 2), (3, 2), (40, 32), (63, 32), (64, 64), (65, 64), (640, 64)]
)
def test_batches_are_no_larger_than_the_videos_are_many(videos: int, batch: int) -> None:
    parts = plan(GpuSettings(Path("/data"), Path("/out"), videos=videos, steps=("loader", "train")), V100)
    sizes = {part.name: part.command[part.command.index("--batch-size") + 1] for part in parts[1:]}
    assert sizes.pop("loader_16", "16") == "16"
    assert set(sizes.values()) == {str(batch)}


def test_the_videos_are_chosen_once_for_all_parts() -> None:
    settings = GpuSettings(Path("/data"), Path("/out"))
    for steps, users in ((("loader", "train"), 8), (("train",), 6), (("loader",), 2)):
        first, *others = plan(replace(settings, steps=steps), V100)
        assert (first.name, first.step) == ("videos", steps[0])
        assert len(others) == users
        assert all(part.command[part.command.index("--selection") + 1] in first.command for part in others)


def test_what_is_pasted_into_a_shell_runs_there(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['A'], os.getcwd())"
    (tmp_path / "a b").mkdir()
    part = Part("x", "x", (sys.executable, "-c", code, "it's"), 1, environment={"A": "c d"}, folder=tmp_path / "a b")
    done = subprocess.run(["sh", "-c", part.pasted], capture_output=True, text=True, check=True)
    assert done.stdout == f"it's c d {tmp_path}/a b\n"


@pytest.mark.parametrize("names", [[""], ["kernel"], ["train", "train"]])
def test_steps_that_there_are_not(names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"--steps .*: expected one or more of machine, doctor, kernels"):
        check_steps(names)
